"""Devices and verdicts of a rollout, as a store with real samples holds them."""

import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from cloud.rollouts.observation import ScreeningCounts, Tally
from cloud.rollouts.stages import Stage
from cloud.store import Store
from cloud.store.fleet import Place, revoke, set_place, store_heartbeat
from cloud.store.ingest import Received, store_samples
from cloud.store.judging import store_verdicts, waiting_samples
from cloud.store.registry import Registry
from cloud.store.releases import release
from cloud.store.rollout_devices import Member, count_verdicts, members, reports, save_members
from cloud.store.rollouts import StagedRollout, active_rollouts, begin, save_progress
from shared.bundle import sign
from shared.modality import Modality
from shared.samples import Decision, Route, Sample, Screening, Verdict, new_sample_id
from shared.status import Heartbeat, HeartbeatCounters, RunningBundle
from shared.wire import encode_payload
from tests.cloud.console.filled_store import KEY, SHUTTLE, manifest


@pytest.fixture
async def rollout(store: Store, tmp_path: Path) -> StagedRollout:
    """A rollout whose trial is device "one"."""
    registry = Registry(store, tmp_path, KEY.public_key())
    for version in (1, 2):
        bundle = sign(manifest(SHUTTLE, version), {"edge/note.json": b"{}"}, KEY)
        entry = await registry.publish(bundle, make_current=version == 1)
    stages = [Stage(name="trial", devices=("one",)), Stage(name="wave 100 %", percent=100)]
    return await begin(store, "shuttle", entry.bundle_id, stages, author="ada", reason="", now_s=time.time())


async def judged(store: Store, device_id: str, bundle_id: str, route: Route, decision: Decision) -> None:
    values = np.zeros(3, np.float32)
    sample = Sample(new_sample_id(), "lab", Modality.TABULAR, time.time(), "row 1", values)
    screening = Screening(1.0, 0.01, False, route, bundle_id, "cal", "int8")
    received = Received(sample, screening, encode_payload(values, Modality.TABULAR))
    await store_samples(store, device_id, [received], time.time())
    (waiting,) = await waiting_samples(store, 10)
    verdict = Verdict(uuid.UUID(bytes=sample.sample_id.bytes), decision, 0.5, False, (), bundle_id, time.time())
    await store_verdicts(store, [(waiting, verdict)])


async def test_verdicts_are_counted_once_by_bundle_and_only_from_devices_of_the_stages(store, rollout):
    new, old = rollout.bundle_id, rollout.before_bundle_id
    for device_id, bundle_id, route, decision in (
        ("one", new, Route.FORWARD, Decision.NORMAL),
        ("one", new, Route.ALARM, Decision.ANOMALOUS),
        ("one", new, Route.AUDIT, Decision.ANOMALOUS),
        ("one", new, Route.FORWARD, Decision.UNDECIDED),
        ("two", new, Route.FORWARD, Decision.NORMAL),  # not in a stage: it cannot speak for the bundle
        ("two", old, Route.AUDIT, Decision.NORMAL),
    ):
        await judged(store, device_id, bundle_id, route, decision)
    expected = {new: Tally(2, 1, 1, 1), old: Tally(0, 0, 1, 0)}
    for first in (True, False):  # a restarted service goes on after the verdicts that it has counted
        async with store.writing() as connection:
            (seen,) = await active_rollouts(connection)
            counted = await count_verdicts(connection, seen, time.time() + 1)
            await save_progress(connection, seen, [], [], counted.tallies, counted.last)
        assert counted.tallies == expected
        assert counted.added == ({"one": expected[new]} if first else {})


async def test_members_are_kept_as_they_were(store, rollout):
    first = Member("one", ScreeningCounts(10, 2, 1), 5.0, ("bundles: 1 were rolled back",))
    swapped = Member("one", ScreeningCounts(10, 2, 1), 5.0, (), ScreeningCounts(20, 3, 1), Tally(4, 3, 2, 1))
    for member in (first, swapped):
        async with store.writing() as connection:
            await save_members(connection, rollout, [member])
            assert await members(connection, rollout) == {"one": member}


async def test_reports_are_of_devices_that_run_the_name_and_get_its_bundles(store, rollout):
    def beat(name: str, state: str = "running") -> Heartbeat:
        running = (RunningBundle(source_id="lab", bundle_name=name, bundle_id=rollout.bundle_id, state=state),)
        counters = HeartbeatCounters(samples_screened=10, samples_forwarded=99, samples_alarmed=1)
        warnings = ("bundles: 1 could not be used", "spool: full")
        return Heartbeat(running=running, counters=counters, warnings=warnings)

    async def found() -> list[str]:
        async with store.reading() as connection:
            return [report.device_id for report in await reports(connection, "shuttle")]

    await store_heartbeat(store, "one", beat("shuttle", "waiting for a bundle"))
    await store_heartbeat(store, "two", beat("other"))
    async with store.reading() as connection:
        (report,) = await reports(connection, "shuttle")
    assert (report.counts, report.broken) == (ScreeningCounts(10, 10, 1), True)
    assert report.warnings == ("bundles: 1 could not be used",)
    await store_heartbeat(store, "two", beat("shuttle"))
    assert await found() == ["one", "two"]
    await release(store, "shuttle", ["presses"], time.time())
    await set_place(store, ["two"], Place(group="presses"))
    assert await found() == ["two"]
    await revoke(store, "two")
    assert await found() == []
