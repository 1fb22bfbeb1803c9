"""A clock that jumps by a year, forwards or backwards, while the agent runs: nothing is lost, late, or stuck for it."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.alarms import Alarm, AlarmDelivery
from edge.counters import Counters
from edge.operation.latency import LatencyHistogram
from edge.settings import SpoolSettings, UplinkSettings
from edge.sources import watched
from edge.spool import Spool
from edge.uplink.events import EventReader
from edge.uplink.verdicts import VerdictStore
from shared import samples
from shared.samples import Decision, Verdict, new_sample_id
from shared.wire import verdict_to_message
from tests.edge.cloud_double import CloudDouble
from tests.edge.conftest import Enrol
from tests.edge.forked import Forked
from tests.edge.odd_agents import agent_by_a_clock_that_is_set
from tests.edge.proxy import Proxy
from tests.edge.test_alarms import SECRET, Hook, webhook
from tests.edge.test_spool import put, sample, until
from tests.edge.test_watched import Watcher
from tests.edge.test_watched import put as put_picture
from tests.edge.verdict_rows import stored
from vedette.v1 import detection_pb2

YEAR_S = 365 * 86400.0


class WallClock:
    """The wall clock, `ahead_s` ahead of the true one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_s = 0.0
        true, true_ns = time.time, time.time_ns
        monkeypatch.setattr(time, "time", lambda: true() + self.ahead_s)
        monkeypatch.setattr(time, "time_ns", lambda: true_ns() + int(self.ahead_s * 1e9))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[WallClock]:
    yield WallClock(monkeypatch)
    samples._SAMPLE_IDS._reset()  # ids rise even if the clock is set back, which would reach the next tests


@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S])
def test_nothing_in_the_spool_expires_for_a_jump_and_all_of_it_in_its_time(
    tmp_path: Path, clock: WallClock, jump_s: float
) -> None:
    counters = Counters()
    spool = Spool(tmp_path / "spool.db", SpoolSettings(max_age_s=1.0), counters)
    put(spool, [sample(0.1)])
    clock.ahead_s = jump_s
    put(spool, [sample(0.2)])
    assert spool.status().samples == 2
    if jump_s < 0:  # a start with the clock behind the newest sample
        spool.close()
        spool = Spool(tmp_path / "spool.db", SpoolSettings(max_age_s=1.0), counters)
    time.sleep(1.1)
    put(spool, [sample(0.3)])
    assert spool.status().samples == 1
    assert counters.snapshot()["samples_dropped"] == 2
    spool.close()


def test_an_alarm_that_waits_for_its_sink_is_not_too_old_for_a_jump(tmp_path: Path, clock: WallClock) -> None:
    hook, counters, secret = Hook(), Counters(), tmp_path / "secret"
    hook.status = 500
    secret.write_bytes(SECRET)
    delivery = AlarmDelivery([webhook(hook, secret)], tmp_path / "alarms.db", counters, lambda: "device-1")
    delivery.start()
    delivery.tell(Alarm("plant", "r:1", 1e-6, 0.0, "", "plant-1"))
    until(lambda: delivery.status()["hook"].error)
    clock.ahead_s, hook.status = YEAR_S, 200
    until(lambda: counters.snapshot()["alarms_sent"] == 1)
    assert counters.snapshot()["alarms_dropped"] == 0
    delivery.stop(1.0)
    hook.close()


def test_the_verdicts_that_came_first_are_forgotten_first_whatever_the_clock_said(
    tmp_path: Path, clock: WallClock
) -> None:
    store = VerdictStore(tmp_path / "v.db", max_verdicts=3)
    ids = [new_sample_id() for _ in range(6)]
    for number, sample_id in enumerate(ids):
        clock.ahead_s = -YEAR_S if number >= 3 else 0.0
        store.store([Verdict(sample_id, Decision.NORMAL, 0.5, False, (), "b", 0.0)], number)
    assert list(stored(store)) == [sample_id.bytes for sample_id in ids[3:]]
    store.expect([ids[5].bytes])
    assert store.awaited() == 0
    store.close()


def test_a_clock_set_back_between_sample_and_verdict_gives_no_latency_of_nothing(
    tmp_path: Path, clock: WallClock
) -> None:
    latency, store = LatencyHistogram(), VerdictStore(tmp_path / "v.db")
    reader = EventReader(UplinkSettings(), store, Counters(), latency, lambda: None)
    for number, ahead_s in enumerate((0.0, -YEAR_S), 1):
        clock.ahead_s = 0.0
        verdict = Verdict(new_sample_id(), Decision.NORMAL, 0.5, False, (), "b", 0.0)
        clock.ahead_s = ahead_s
        asyncio.run(reader._handle([detection_pb2.Event(cursor=number, verdict=verdict_to_message(verdict))]))
    assert latency.totals()[0] == 1
    assert store.totals()["verdicts"] == 2
    store.close()


class Changes:
    """A file system whose times of change follow the wall clock of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clock: WallClock) -> None:
        self._moments: dict[tuple[str, int], int] = {}
        self._clock = clock
        found = watched.WatchedFolder._files_below

        def files_below(folder: watched.WatchedFolder) -> Iterator[watched._File]:
            for file in found(folder):
                key = file.name, file.changed_ns
                moment_ns = self._moments.setdefault(key, file.changed_ns + int(self._clock.ahead_s * 1e9))
                yield watched._File(moment_ns, file.name)

        monkeypatch.setattr(watched.WatchedFolder, "_files_below", files_below)


@pytest.mark.parametrize("back_s", [5.0, YEAR_S])
def test_files_that_come_after_the_clock_was_set_back_are_screened_and_no_other_again(
    tmp_path: Path, clock: WallClock, monkeypatch: pytest.MonkeyPatch, back_s: float
) -> None:
    Changes(monkeypatch, clock)
    watcher = Watcher(tmp_path)
    clock.ahead_s = back_s
    for number in range(3):
        put_picture(tmp_path, f"before-{number}.png")
    assert watcher.take(3) == [f"before-{number}.png" for number in range(3)]
    threading.Timer(0.2, lambda: put_picture(tmp_path, "unseen.png")).start()  # it has a moment of the future
    assert watcher.take(1) == ["unseen.png"]
    clock.ahead_s = 0.0
    put_picture(tmp_path, "after.png")
    assert watcher.take(1) == ["after.png"]
    again = Watcher(tmp_path, watcher.cursor)  # the next run knows them, too
    put_picture(tmp_path, "later.png")
    assert again.take(1) == ["later.png"]
    assert again.finish() == []


def test_a_file_of_the_future_is_screened_when_it_has_not_changed_for_a_while(
    tmp_path: Path, clock: WallClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    Changes(monkeypatch, clock)
    clock.ahead_s = YEAR_S
    put_picture(tmp_path, "a.png")
    watcher = Watcher(tmp_path, settle_s=0.3)
    list(watcher.source._files_below())  # it has its moment
    clock.ahead_s = 0.0
    started_s = time.monotonic()
    assert watcher.take(1) == ["a.png"]
    assert time.monotonic() - started_s >= 0.3


@pytest.mark.system
def test_an_agent_goes_on_through_jumps_and_says_when_its_certificate_is_out_of_date(
    cloud: CloudDouble, enrol: Enrol, tmp_path: Path
) -> None:
    proxy = Proxy(cloud.port)
    device = enrol(proxy.address)
    device.settings["router"] |= {"max_samples_per_s": 50, "forward_p_value": 1.0}
    device.settings["spool"] = {"max_age_s": 3600.0}
    device.settings["sources"][0] |= {"rate_per_s": 200, "loop": True, "batch_size": 16}
    device.write()
    ahead = tmp_path / "ahead"
    ahead.write_text("0")

    def set_clock(ahead_s: float) -> None:
        (tmp_path / "new").write_text(str(ahead_s))
        os.replace(tmp_path / "new", ahead)

    def goes_on() -> None:
        count = len(cloud.samples)
        device.until(lambda: len(cloud.samples) > count + 30)

    device.process = Forked(device.log, agent_by_a_clock_that_is_set, device.config, ahead)
    goes_on()
    for jump_s, said in ((10 * YEAR_S, "device.crt: expired on"), (-10 * YEAR_S, "device.crt: not valid before")):
        set_clock(jump_s)
        goes_on()  # over the connection there is
        proxy.cut()
        device.until(lambda said=said: said in device.status()["link"]["error"])
        spooled = device.status()["spool"]["samples"]
        device.until(lambda spooled=spooled: device.status()["spool"]["samples"] > spooled + 20)
        proxy.mend()
        set_clock(0.0)
        goes_on()
    assert device.terminate() == 0, device.text()
    counts = device.counters()
    assert counts["samples_dropped"] == 0
    left = device.status()["spool"]["samples"]
    assert counts["samples_forwarded"] + counts["samples_audited"] == counts["samples_acknowledged"] + left
    proxy.close()
