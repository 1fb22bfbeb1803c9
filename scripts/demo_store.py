"""Store of a small plant after one day: real data, screened, routed and judged by the product's own code.

The devices, data and training settings are those of `vedette demo`. Only the times are invented: the samples of each
device are spread over the last 24 hours, in which the demo takes two minutes.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from sqlalchemy import select, update

from cloud.demo.datasets import artery_plan, camera_plan, shuttle_plans
from cloud.demo.streams import DevicePlan
from cloud.notice_kinds import NoticeKind
from cloud.rollouts.stages import parse_stages
from cloud.serving.analysis import Analysis
from cloud.serving.verdicts import Decoded, judge_batch
from cloud.settings import CloudSettings
from cloud.store import Store
from cloud.store.api_tokens import Scope, add_api_token
from cloud.store.fleet import Place, add_tokens, set_place, set_title, store_heartbeat
from cloud.store.group_settings import change_settings
from cloud.store.heartbeat_history import SLOT_S, note_heartbeat
from cloud.store.ingest import inbox_request
from cloud.store.judging import WaitingSample, store_verdicts, waiting_samples
from cloud.store.notices import Absences, Condition, follow
from cloud.store.registry import Registry
from cloud.store.review.builder import build_items
from cloud.store.rollouts import begin
from cloud.store.schema import heartbeats, inbox
from cloud.store.users import add_user
from cloud.training import TrainingSettings, load_training_data, train_bundle
from cloud.user_roles import UserRole
from edge.routing.budget import UploadBudget
from edge.routing.forwarding import Forwarded, Forwarder
from edge.routing.newest_sample import newest_sample
from edge.routing.router import RateMeter, Router
from edge.screener import Screener, load_screener
from edge.settings import RouterSettings
from scripts.demo_work import compare, run_rounds, train, work
from shared.bundle import Bundle, sign
from shared.group_settings import GroupSettings
from shared.live_views import NewestSample
from shared.modality import Modality
from shared.samples import SampleBatch
from shared.signing_keys import key_id
from shared.status import Heartbeat, HeartbeatCounters, RunningBundle
from tests.cloud.console.filled_store import add_devices
from tests.trained import cached_files
from vedette.v1 import sample_pb2

DAY_S = 86_400.0
BATCH = 64
EFFORT = 0.1  # of training
ARTEFACT = "int8_onnxruntime"
SECONDS = 12.0  # of the demo's streams: 1,200 rows, 480 readings
CAMERA_SECONDS = 60.0  # 120 pictures
SILENT, SILENT_S = "shuttle-b", 2_700.0
NEVER_SEEN = "press-07"
TITLES = {"shuttle-a": "Radiator, bay 1", "shuttle-b": "Radiator, bay 2", "artery": "Monitor, ward 3"}
PLACES = {
    "shuttle-a": Place("hull", "telemetry"),
    "shuttle-b": Place("hull", "telemetry"),
    "artery": Place("clinic", "monitors"),
    "camera": Place("hull", "cameras"),
}
ADMIN = "user:ada"
PEOPLE = {"ada": UserRole.ADMIN, "grace": UserRole.OPERATOR, "lin": UserRole.VIEWER}


@dataclass
class Replay:
    """One device over the day: what its agent has counted at each time, what it runs, and its newest sample."""

    plan: DevicePlan
    bundle: Bundle
    until_s: float
    counts: list[tuple[float, Counter[str]]]
    newest: NewestSample | None = None

    @property
    def device_id(self) -> str:
        """Id of the device."""
        return self.plan.device_id

    def heartbeat(self, at_s: float) -> Heartbeat:
        """Return the heartbeat at a time, with the counters of the samples before it."""
        found = Counter[str]()
        for counted_s, counter in self.counts:
            if counted_s > at_s:
                break
            found = counter
        manifest = self.bundle.manifest
        return Heartbeat(
            agent_version="0.1.0",
            counters=HeartbeatCounters(**{name: found[name] for name in HeartbeatCounters.model_fields}),
            running=(
                RunningBundle(
                    source_id=self.device_id,
                    bundle_name=manifest.name,
                    bundle_id=manifest.bundle_id,
                    artefact=ARTEFACT,
                    state="running",
                ),
            ),
            settings=GroupSettings(false_alarms_per_day=1.0, audit_share=0.01, max_samples_per_s=0, max_bytes_per_s=0),
            disk_free_bytes=11 * 2**30,
        )


class DemoStore:
    """Fills a store below `folder`; training takes most of the time."""

    def __init__(self, folder: Path, settings: CloudSettings, key: Ed25519PrivateKey) -> None:
        self._folder, self._settings, self._key = folder, settings, key
        self.replays: list[Replay] = []
        self.share_secret = ""  # of the link to a verdict

    async def fill(self, store: Store) -> None:
        """Train the bundles, replay the day, and let people work on the result."""
        torch.set_num_threads(1)
        registry = Registry(store, self._settings.store, self._key.public_key())
        plans = [*shuttle_plans(self._folder, SECONDS), artery_plan(self._folder, SECONDS)]
        plans.append(camera_plan(self._folder, CAMERA_SECONDS))
        await add_devices(store, *(plan.device_id for plan in plans), NEVER_SEEN)
        bundles: dict[str, Bundle] = {}
        for plan in plans:
            if plan.bundle_name not in bundles:
                bundles[plan.bundle_name] = await asyncio.to_thread(self._train, plan)
                await registry.publish(bundles[plan.bundle_name])
            await self._replay(store, plan, bundles[plan.bundle_name])
        await build_items(store, [Modality.IMAGE.value, Modality.VIDEO.value])
        await self._place(store)
        await self._work(store)
        await self._roll_out(store, registry, bundles["camera"])
        await train(store)
        name, shuttle = next((name, bundle) for name, bundle in bundles.items() if name.startswith("shuttle"))
        version = shuttle.manifest.version + 1
        run_rounds(self._settings.data_dir, name, shuttle.manifest.bundle_id, f"{name}-{version}-5f0c1a7e")

    async def beat(self, store: Store) -> None:
        """Store the newest heartbeats of all devices but the silent one, as of now."""
        for replay in self.replays:
            if replay.device_id != SILENT:
                await store_heartbeat(store, replay.device_id, replay.heartbeat(time.time()), clock_offset_s=0.02)

    def _train(self, plan: DevicePlan) -> Bundle:
        """Train the bundle of a device, or read it from an earlier run with the same code."""
        wanted = {"name": plan.bundle_name, "effort": EFFORT, "device": "cpu", **plan.training}
        settings = TrainingSettings.model_validate(wanted)

        def make(folder: Path) -> None:
            data = load_training_data(plan.training_data, plan.modality, settings.data)
            train_bundle(data, settings, self._key).save(folder / "trained.vedette")

        folder = cached_files(f"pictures-{plan.bundle_name}", [wanted, key_id(self._key.public_key())], make)
        return Bundle.open(folder / "trained.vedette", [self._key.public_key()])

    async def _replay(self, store: Store, plan: DevicePlan, bundle: Bundle) -> None:
        """Screen, route, store and judge the samples of one device, spread over the day."""
        until_s = time.time() - (SILENT_S if plan.device_id == SILENT else 2.0)
        screener = load_screener(bundle, ARTEFACT, BATCH, self._folder / "engines")
        analysis = Analysis.load(bundle, "cpu")
        origins = list(_origins(plan, bundle))
        router = RouterSettings(seed=0)
        budget = UploadBudget(router)
        rate = RateMeter(len(origins) / DAY_S)
        forwarder = Forwarder(Router(router, plan.device_id, rate, budget), router, budget, lambda alarm: None)
        replay = Replay(plan, bundle, until_s, [])
        total = Counter[str]()
        for first in range(0, len(origins), BATCH):
            part = origins[first : first + BATCH]
            times = until_s - (len(origins) - 1 - np.arange(first, first + len(part))) / len(origins) * DAY_S
            batch = _batch(plan, bundle, part, times)
            screened = screener.screen(batch)
            forwarded = forwarder.forward(batch, screened, screener)
            replay.newest = newest_sample(batch, screened, forwarded.codes, screener)
            await self._deliver(store, replay, analysis, screener, batch, forwarded)
            total += Counter(forwarded.counts)
            total["bytes_uploaded"] += sum(len(sample.data) for sample in forwarded.samples)
            replay.counts.append((float(times[-1]), total.copy()))
        self.replays.append(replay)
        await self._write_history(store, replay)

    async def _deliver(
        self,
        store: Store,
        replay: Replay,
        analysis: Analysis,
        screener: Screener,
        batch: SampleBatch,
        forwarded: Forwarded,
    ) -> None:
        """Store the samples as the service does, one request each, and the verdicts of the analysis."""
        messages = [sample_pb2.Sample.FromString(sample.data) for sample in forwarded.samples]
        if not messages:
            return
        latency = np.random.default_rng(len(replay.counts)).gamma(4.0, 0.08, len(messages)).tolist()
        requests = [
            inbox_request(replay.device_id, message.captured_at.ToNanoseconds() / 1e9 + wait_s, [message])
            for message, wait_s in zip(messages, latency, strict=True)
        ]
        await store.append_requests(requests)
        waiting = await self._unpacked(store)
        spec = replay.bundle.manifest.input
        decoded = []
        for item in waiting:
            message = next(each for each in messages if each.sample_id == item.sample_id.bytes)
            decoded.append(Decoded(item, replay.plan.stream.values(message.origin, spec)))
        rate = self._settings.analysis.false_alarm_rate
        identity = replay.bundle.manifest.bundle_id
        verdicts = await asyncio.to_thread(judge_batch, analysis, decoded, bundle_id=identity, false_alarm_rate=rate)
        judged = [
            (item, replace(verdict, judged_at_s=item.received_at_s + 0.3))
            for item, verdict in zip(waiting, verdicts, strict=True)
        ]
        await store_verdicts(store, judged)

    async def _unpacked(self, store: Store) -> list[WaitingSample]:
        """Return the samples that were stored last, which wait for their verdicts."""
        async with store.reading() as connection:
            numbers = (await connection.execute(select(inbox.c.number).order_by(inbox.c.number))).scalars().all()
        await store.unpack(numbers)
        return await waiting_samples(store, 1000)

    async def _write_history(self, store: Store, replay: Replay) -> None:
        """Write the heartbeats that the service keeps of a day."""
        async with store.writing() as connection:
            at_s = replay.until_s - DAY_S
            while at_s <= replay.until_s:
                beat = replay.heartbeat(at_s)
                integers = beat.counters.model_dump() | {"spool_samples": 0, "spool_bytes": 0}
                await note_heartbeat(connection, replay.device_id, at_s, integers, health="healthy", is_drifting=False)
                at_s += SLOT_S

    async def _place(self, store: Store) -> None:
        """Put the devices into sites and groups, as an administrator does."""
        for device_id, place in PLACES.items():
            await set_place(store, [device_id], place, actor=ADMIN)
        for device_id, title in TITLES.items():
            await set_title(store, device_id, title, actor=ADMIN)
        wanted = GroupSettings(false_alarms_per_day=1.0, audit_share=0.01)
        await change_settings(store, "telemetry", wanted)
        now_s = time.time()
        await add_tokens(store, {secrets.token_urlsafe(32): "press-08"}, now_s + DAY_S, Place("hull", "presses"), ADMIN)
        for replay in self.replays:
            last_s = time.time() if replay.device_id != SILENT else replay.until_s
            await store_heartbeat(store, replay.device_id, replay.heartbeat(last_s), clock_offset_s=0.02)
        async with store.writing() as connection:  # the last sign of life of the silent device
            late = update(heartbeats).where(heartbeats.c.device_id == SILENT)
            await connection.execute(late.values(received_at_s=now_s - SILENT_S))

    async def _work(self, store: Store) -> None:
        """Accounts, the work of their people, a token of a script, and notices."""
        async with store.writing() as connection:
            for name, role in PEOPLE.items():
                await add_user(connection, name, role, actor=ADMIN)
        secret = secrets.token_urlsafe(32)
        scopes = [Scope.VERDICTS_READ, Scope.LABELS_READ]
        expires_at_s = time.time() + 90 * DAY_S
        await add_api_token(
            store, "k3m9xq2v7ta4", secret, name="nightly report", scopes=scopes, expires_at_s=expires_at_s
        )
        self.share_secret = await work(store, ADMIN)
        await self._note(store)

    async def _note(self, store: Store) -> None:
        """Open the notice of the silent device as the service does, and close one of the night."""
        night_s, since_s = time.time() - 9 * 3600, time.time() - SILENT_S + 900
        full = Condition(NoticeKind.DEVICE_DISK_FULL, "camera", "The disk of device camera has only 310 MB left.")
        silent = f"Device {SILENT} has sent no heartbeat for 15 min."
        quiet = Condition(NoticeKind.DEVICE_SILENT, SILENT, silent)
        absences = Absences(close_after_s=0.0)
        for conditions, now_s in (([full], night_s), ([], night_s + 1500), ([quiet], since_s)):
            await follow(store, conditions, absences, lambda notice: {}, lambda kind: (), now_s=now_s)

    async def _roll_out(self, store: Store, registry: Registry, bundle: Bundle) -> None:
        """Publish a second version of the camera's bundle and roll it out in stages."""
        manifest = bundle.manifest.model_copy(update={"version": 2, "parent_bundle_id": bundle.manifest.bundle_id})
        second = (await registry.publish(sign(manifest, bundle.files, self._key), make_current=False)).bundle_id
        stages = parse_stages("trial=camera", "50,100", least_s=3600, least_samples=200)
        told = {"author": "ada", "reason": "new lamp above the line", "now_s": time.time() - 1200}
        await begin(store, "camera", second, stages, actor=ADMIN, **told)
        await compare(store, registry, (manifest.parent_bundle_id, second), self._settings.analysis.false_alarm_rate)


def _origins(plan: DevicePlan, bundle: Bundle) -> Iterator[str]:
    """Yield the origins of the samples, as the device's source names them."""
    spec, path = bundle.manifest.input, plan.stream.path
    if plan.modality is Modality.IMAGE:
        yield from sorted(file.name for file in path.iterdir())
        return
    rows = sum(1 for _ in path.open()) - 1
    length, stride = max(spec.window_length, 1), max(spec.window_stride, 1)
    if plan.modality is Modality.TABULAR:
        length = stride = 1
    for first in range(0, rows - length + 1, stride):
        yield f"{path.name}:{first + 1}"


def _batch(plan: DevicePlan, bundle: Bundle, origins: list[str], times: NDArray[np.float64]) -> SampleBatch:
    spec = bundle.manifest.input
    values = [plan.stream.values(origin, spec) for origin in origins]
    stacked: Any = values if plan.modality is Modality.IMAGE else np.stack(values)
    return SampleBatch(plan.device_id, plan.modality, stacked, times, origins)
