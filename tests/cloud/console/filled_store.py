"""A store as a running fleet would leave it: real readings and photographs, written through the service's own code.

To look at the console with it: python tests/cloud/console/filled_store.py FOLDER [--port 7480] [--each-s 1]
"""

import argparse
import asyncio
import csv
import functools
import gzip
import io
import tempfile
import time
import uuid
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from sqlalchemy import insert

from cloud.store import Store
from cloud.store.fleet import store_heartbeat
from cloud.store.ingest import Received, store_samples
from cloud.store.judging import WaitingSample, store_verdicts, waiting_samples
from cloud.store.migrate import migrate
from cloud.store.registry import Registry
from cloud.store.schema import devices
from cloud.store.sqlite.store import DATABASE_FILE, SqliteStore
from shared.bundle import Artefact, InputSpec, Manifest, sign
from shared.images import decode_image
from shared.modality import Modality
from shared.samples import Decision, ImageCrop, Opinion, Route, Sample, Screening, Values, Verdict, new_sample_id
from shared.status import Heartbeat, HeartbeatCounters, RunningBundle
from shared.wire import encode_payload, sample_to_message

XSS = '<img src=x onerror="window.pwned=1"></script><script>window.pwned=1</script>${window.pwned=1}`{{constructor}}'
_WITH_MAP = (Modality.IMAGE, Modality.VIDEO)
KEY = Ed25519PrivateKey.generate()


@dataclass(frozen=True)
class Kind:
    """One device with its source and the bundle it runs."""

    device_id: str
    source_id: str
    modality: Modality
    bundle_name: str
    channels: tuple[str, ...] = ()


SHUTTLE = Kind("shuttle-a", "radiator", Modality.TABULAR, "shuttle", tuple(f"sensor_{i}" for i in range(1, 10)))
ARTERY = Kind("artery-ward-3", "pressure", Modality.SERIES, "artery", ("pressure_mmhg", "its_slope"))
CAMERA = Kind("camera-north", "line-2", Modality.IMAGE, "bricks")
DOOR = Kind("door-2", "entrance", Modality.VIDEO, "door")
KINDS = (SHUTTLE, ARTERY, CAMERA, DOOR)


def manifest(kind: Kind, version: int = 1) -> Manifest:
    """A manifest for a bundle whose contents nobody opens here."""
    artefact = Artefact(
        name="int8_openvino",
        engine="openvino",
        precision="int8",
        graph="edge/screener_int8_openvino.xml",
        calibration="edge/calibration_int8_openvino.npz",
        calibration_id="0f3a9b21c4de",
    )
    return Manifest(
        name=kind.bundle_name,
        version=version,
        created_at="2026-11-22T10:00:00+00:00",
        modality=kind.modality,
        input=InputSpec(channels=kind.channels, window_length=64, image_height=224, image_width=224),
        artefacts=(artefact,),
        preferred_artefact=artefact.name,
        parity={},
        tolerances={},
        training={},
        files={},
    )


class Fleet:
    """Write samples of such devices and verdicts of the analysis."""

    def __init__(self, store: Store, registry: Registry, seed: int = 7) -> None:
        self.store, self.registry = store, registry
        self.random = np.random.default_rng(seed)
        self.bundle_ids: dict[str, str] = {}
        self._rows, self._labels = shuttle_rows()
        self._pressure, self._bleeding = artery_readings()
        self._brick, self._foreign = photograph("brick.png"), photograph("gravel.png")

    async def enrol(self) -> None:
        """All devices, their bundles and first heartbeats; one device has never been heard of."""
        for kind in KINDS:
            bundle = sign(manifest(kind), {"edge/note.json": kind.bundle_name.encode()}, KEY)
            self.bundle_ids[kind.bundle_name] = (await self.registry.publish(bundle)).bundle_id
        await add_devices(self.store, *(kind.device_id for kind in KINDS), "press-7")
        for place, kind in enumerate(KINDS):
            await self.heartbeat(kind, 41_000 * (place + 1))

    async def heartbeat(self, kind: Kind, screened: int, *warnings: str, dropped: int = 0) -> None:
        """Return the last heartbeat of a device."""
        beat = Heartbeat(
            agent_version="0.1.0",
            counters=HeartbeatCounters(
                samples_screened=screened,
                samples_forwarded=screened // 40,
                samples_audited=screened // 100,
                samples_dropped=dropped,
                bytes_screened=screened * 1800,
                bytes_uploaded=screened * 54,
            ),
            running=(
                RunningBundle(
                    source_id=kind.source_id,
                    bundle_name=kind.bundle_name,
                    bundle_id=self.bundle_ids[kind.bundle_name],
                    artefact="int8_openvino",
                ),
            ),
            spool_samples=screened % 7,
            spool_bytes=2345,
            warnings=warnings,
        )
        await store_heartbeat(self.store, kind.device_id, beat)

    async def send(
        self,
        kind: Kind,
        *,
        origin: str = "",
        at_s: float | None = None,
        odd: bool | None = None,
        part: ImageCrop | None = None,
    ) -> Verdict:
        """One sample from the device to its verdict."""
        odd = bool(self.random.random() < 0.3) if odd is None else odd
        sample, screening, truth = self._sample(kind, odd, time.time() - 0.9 if at_s is None else at_s)
        if origin:
            sample = replace_origin(sample, origin)
        if part is not None:
            sample = replace(sample, crop=part)
        received = Received(sample, screening, sample_to_message(sample, screening).payload)
        await store_samples(self.store, kind.device_id, [received], sample.captured_at_s + 0.31)
        (waiting,) = [item for item in await self.waiting() if item.sample_id == sample.sample_id]
        verdict = self._verdict(kind, sample.sample_id, sample.captured_at_s, truth, odd)
        await store_verdicts(self.store, [(waiting, verdict)])
        return verdict

    async def waiting(self) -> list[WaitingSample]:
        """Return samples without a verdict."""
        return await waiting_samples(self.store, 100)

    async def judge(self, waiting: WaitingSample) -> None:
        """The verdict on a sample that waits."""
        kind = next(kind for kind in KINDS if kind.device_id == waiting.device_id)
        verdict = self._verdict(kind, waiting.sample_id, waiting.received_at_s, None, True)
        await store_verdicts(self.store, [(waiting, verdict)])

    async def leave_waiting(self, kind: Kind) -> Sample:
        """One sample that nobody has judged yet."""
        sample, screening, _ = self._sample(kind, True, time.time() - 2)
        received = Received(sample, screening, encode_payload(sample.values, sample.modality))
        await store_samples(self.store, kind.device_id, [received], time.time() - 1.5)
        return sample

    async def send_many(self, count: int, *, until_s: float | None = None, step_s: float = 7.0) -> None:
        """`count` samples of all devices in turn, the last one at `until_s`."""
        until_s = time.time() - 2 if until_s is None else until_s
        for number in range(count):
            await self.send(KINDS[number % len(KINDS)], at_s=until_s - (count - 1 - number) * step_s)

    def _sample(self, kind: Kind, odd: bool, at_s: float) -> tuple[Sample, Screening, NDArray[np.uint8] | None]:
        values, truth, origin = {
            Modality.TABULAR: self._row,
            Modality.SERIES: self._window,
            Modality.IMAGE: self._crop,
            Modality.VIDEO: self._clip,
        }[kind.modality](odd)
        p_value = float(10 ** -self.random.uniform(1.4, 6)) if odd else float(self.random.uniform(0.01, 0.9))
        route = (Route.ALARM if p_value < 1e-4 else Route.FORWARD) if p_value < 0.05 else Route.AUDIT
        screening = Screening(
            score=float(-np.log10(p_value) * 1.7),
            p_value=p_value,
            extrapolated=p_value < 1 / 2000,
            route=route,
            bundle_id=self.bundle_ids[kind.bundle_name],
            calibration_id="0f3a9b21c4de",
            artefact="int8_openvino",
            anomaly_map=coarse(truth) if kind.modality in _WITH_MAP and truth is not None else None,
        )
        return Sample(new_sample_id(), kind.source_id, kind.modality, at_s, origin, values), screening, truth

    def _row(self, odd: bool) -> tuple[Values, None, str]:
        place = int(self.random.choice(np.flatnonzero(self._labels == odd)))
        return self._rows[place], None, f"shuttle.csv:{place}"

    def _window(self, odd: bool) -> tuple[Values, NDArray[np.uint8], str]:
        if odd:
            first = int(self._bleeding[0]) - int(self.random.integers(10, 50))
        else:
            first = int(self.random.integers(0, self._bleeding[0] - 400))
        pressure = self._pressure[first : first + 64]
        window = np.stack([pressure, np.gradient(pressure)], axis=1).astype(np.float32)
        quiet = self.random.integers(20, 80, (64, 2))
        within = (np.arange(first, first + 64) >= self._bleeding[0]) & (
            np.arange(first, first + 64) <= self._bleeding[-1]
        )
        truth = np.where(within[:, None] & odd, np.array([235, 170]), quiet).astype(np.uint8)
        return window, truth, f"readings.csv:{first}"

    def _crop(self, odd: bool) -> tuple[Values, NDArray[np.uint8], str]:
        top, left = (int(x) for x in self.random.integers(0, 512 - 224, 2))
        crop = self._brick[top : top + 224, left : left + 224].copy()
        truth = self.random.integers(10, 90, (28, 28)).astype(np.uint8)
        if odd:
            y, x = (int(v) for v in self.random.integers(20, 150, 2))
            crop[y : y + 44, x : x + 52] = self._foreign[100:144, 100:152]
            truth[y // 8 : (y + 44) // 8 + 1, x // 8 : (x + 52) // 8 + 1] = self.random.integers(180, 255)
        return np.repeat(crop[..., None], 3, axis=2), truth, f"frame_{int(self.random.integers(1, 99_999)):05d}.png"

    def _clip(self, odd: bool) -> tuple[Values, NDArray[np.uint8], str]:
        left = int(self.random.integers(0, 200))
        frames = np.stack([self._brick[100:324, left + 8 * index : left + 8 * index + 224] for index in range(4)])
        truth = self.random.integers(10, 90, (28, 28)).astype(np.uint8)
        if odd:
            for index in (2, 3):  # it enters in the third frame
                x = 40 * index
                frames[index, 70:160, x : x + 50] = self._foreign[100:190, 100:150]
            truth[70 // 8 : 160 // 8 + 1, 120 // 8 : 170 // 8 + 1] = self.random.integers(180, 255)
        values = np.repeat(frames[..., None], 3, axis=3)
        return values, truth, f"door.mp4:{int(self.random.integers(1, 99_999))}"

    def _verdict(
        self, kind: Kind, sample_id: uuid.UUID, captured_at_s: float, truth: NDArray[np.uint8] | None, odd: bool
    ) -> Verdict:
        base = self.random.uniform(3, 9) if odd else self.random.uniform(0.05, 1.4)
        names = ("reconstruction", "score_norm", "time_estimation", "knn")
        powers = [max(0.02, base + self.random.normal(0, 0.6)) for _ in names]
        opinions = tuple(
            Opinion(name, float(3 * power), float(10**-power), power > 3.3)
            for name, power in zip(names, powers, strict=True)
        )
        p_value = float(10**-base)
        contributions: tuple[tuple[str, float], ...] = ()
        if kind.channels:
            shares = np.sort(self.random.dirichlet(np.full(len(kind.channels), 0.5)))[::-1]
            contributions = tuple(zip(self.random.permutation(kind.channels).tolist(), shares.tolist(), strict=True))
        if kind.modality is Modality.VIDEO:
            shares = np.array([0.04, 0.06, 0.38, 0.52]) if odd else self.random.dirichlet(np.full(4, 5.0))
            contributions = tuple((f"frame {number}", float(share)) for number, share in enumerate(shares, 1))
        return Verdict(
            sample_id=sample_id,
            decision=Decision.ANOMALOUS if p_value < 0.01 else Decision.NORMAL,
            p_value=p_value,
            extrapolated=base > 3.3,
            opinions=opinions,
            bundle_id=self.bundle_ids[kind.bundle_name],
            judged_at_s=captured_at_s + float(self.random.uniform(0.4, 1.6)),
            anomaly_map=truth,
            contributions=contributions,
        )


def replace_origin(sample: Sample, origin: str) -> Sample:
    """The same sample from elsewhere."""
    return Sample(
        sample.sample_id, sample.source_id, sample.modality, sample.captured_at_s, origin, sample.values, sample.encoded
    )


def coarse(truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The map at half its resolution, as the edge sends it."""
    return truth.reshape(14, 2, 14, 2).max(axis=(1, 3))


@functools.cache
def shuttle_rows() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """NASA shuttle telemetry: (rows, 9) and which of them are anomalies."""
    with gzip.open(io.BytesIO(files("river").joinpath("datasets/shuttle.csv.gz").read_bytes()), "rt") as file:
        rows = list(csv.reader(file))[1:4001]
    table = np.array(rows, dtype=np.float32)
    return table[:, :-1], table[:, -1] > 0


@functools.cache
def artery_readings() -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Arterial pressure, and at which time points its one anomaly is."""
    name = "datasets/data/KDD-TSAD_135/135_UCR_Anomaly_InternalBleeding16_TEST.csv"
    rows = list(csv.reader(io.StringIO(files("aeon").joinpath(name).read_text())))[1:]
    table = np.array(rows, dtype=np.float64)
    return table[:, 1], np.flatnonzero(table[:, 2] > 0)


@functools.cache
def photograph(name: str) -> NDArray[np.uint8]:
    """A photograph of scikit-image's, (512, 512) grey."""
    return decode_image(files("skimage").joinpath("data", name).read_bytes())[..., 0]


async def add_devices(store: Store, *device_ids: str) -> None:
    """Enrolled devices, without the ceremony of tokens and certificates."""
    now_s = time.time()
    async with store.writing() as connection:
        for device_id in device_ids:
            await connection.execute(
                insert(devices).values(
                    device_id=device_id,
                    enrolled_at_s=now_s - 86_400,
                    certificate_serial="1f",
                    certificate_expires_at_s=now_s + 365 * 86_400,
                )
            )


@functools.cache
def empty_database() -> bytes:
    """The file of a new store."""
    with tempfile.TemporaryDirectory() as folder:
        migrate(Path(folder))
        return (Path(folder) / DATABASE_FILE).read_bytes()


def open_store(folder: Path) -> tuple[Store, Registry]:
    """A new store below the folder and a registry that trusts the test's key."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / DATABASE_FILE).exists():
        (folder / DATABASE_FILE).write_bytes(empty_database())
    store = SqliteStore(folder)
    return store, Registry(store, folder, KEY.public_key())


async def _serve(folder: Path, port: int, each_s: float, count: int) -> None:
    import uvicorn

    from cloud.console import create_app

    store, registry = open_store(folder)
    fleet = Fleet(store, registry)
    if count:
        await fleet.enrol()
        await fleet.heartbeat(ARTERY, 123_000, "spool 81 % full: raise spool.max_bytes, or the uplink's budget")
        await fleet.send_many(count)
        await fleet.send(CAMERA, origin=XSS, odd=True)
    server = uvicorn.Server(uvicorn.Config(create_app(store, registry), port=port, log_level="warning"))
    task = asyncio.create_task(server.serve())
    number = 0
    while not task.done():
        await asyncio.sleep(each_s or 1)
        if each_s and count:
            kind = KINDS[number % len(KINDS)]
            await fleet.send(kind)
            await fleet.heartbeat(kind, 123_000 + number)
            number += 1
    await store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=7480)
    parser.add_argument("--each-s", type=float, default=0.0, help="seconds between two new verdicts; 0: none")
    parser.add_argument("--count", type=int, default=120)
    options = parser.parse_args()
    asyncio.run(_serve(options.folder, options.port, options.each_s, options.count))
