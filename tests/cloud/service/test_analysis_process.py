"""Analysis in a child process: it is replaced when it ends or hangs, and no sample is lost."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from cloud.analysis_settings import AnalysisSettings
from cloud.service.analysis_link import (
    EVENT_BYTES,
    MAX_FRAME_BYTES,
    AnalysisLink,
    judged_of,
    judged_reports,
    parsed_report,
)
from cloud.service.analysis_port import AnalysisListener, DeviceLoad, JudgedSamples
from cloud.service.analysis_process import AnalysisProcess
from cloud.service.event_messages import PushedEvent
from cloud.serving.isolation import ENDS_PROCESS
from cloud.store.sqlite.store import DATABASE_FILE
from shared.errors import ConnectionFailedError
from tests.cloud.console.filled_store import empty_database
from tests.cloud.service.harness import message, running, settings_for
from vedette.v1 import analysis_pb2, sample_pb2


async def until(condition, timeout_s: float = 180) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.05)


async def answer(process: AnalysisProcess) -> None:
    """Wait until the child answers."""
    async with asyncio.timeout(60):
        while not await process.metrics_page():
            await asyncio.sleep(0.05)


def has_ended(pid: int) -> bool:
    """Whether there is no such process, apart from one that was not waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
async def judging(tmp_path, biopsies):
    """A service with a bundle, whose analysis runs in a child process."""
    async with running(settings_for(tmp_path), biopsies.key, load_analysis=None) as cloud:
        await cloud.service.registry.publish(biopsies.bundle)
        yield cloud


async def test_samples_of_a_killed_analysis_process_get_one_verdict_each_of_the_next_one(judging, biopsies):
    service, device = judging.service, await judging.device()
    child = service._analysis
    sent = [message(values) for values in biopsies.normal[:30]]
    watching = asyncio.create_task(device.verdicts(len(sent), timeout_s=400))
    await device.submit(sent[:10])
    await until(lambda: service.health()["backlog_samples"] == 0)
    assert b'vedette_verdicts_total{decision="normal"}' in await service._metrics_page()
    pid = child.pid
    os.kill(pid, signal.SIGSTOP)  # so that samples wait when it is killed
    await device.submit(sent[10:])
    os.kill(pid, signal.SIGKILL)
    await until(lambda: service.readiness()["status"] == "not ready")
    assert service.readiness()["analysis"] == "the analysis process was ended by signal 9 and is started again"
    assert (await watching).keys() == {sample.sample_id for sample in sent}
    assert child.pid != pid
    assert service.readiness()["status"] == "ready"
    await until(lambda: service.health()["backlog_samples"] == 0)
    events = await device.events(1 + len(sent))  # and the published bundle
    assert len(events) == 1 + len(sent)
    assert await device.events(1, cursor=events[-1].cursor, timeout_s=1) == []
    await service.stop()
    assert has_ended(child.pid)


ENDING = """
import os, signal, sys
if "cloud.service.analysis_child" in sys.orig_argv:
    from cloud.serving import verdicts
    plain = verdicts.decode_batch
    def decode_batch(pairs):
        if any(waiting.sample_id.hex == "SAMPLE" for waiting, _ in pairs):
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(pairs)
    verdicts.decode_batch = decode_batch
"""


async def test_a_sample_that_ends_the_analysis_process_is_undecided_and_the_others_are_judged(
    tmp_path, biopsies, monkeypatch
):
    sent = [message(values) for values in biopsies.normal[:12]]
    faulty = sent[5].sample_id
    (tmp_path / "sitecustomize.py").write_text(ENDING.replace("SAMPLE", faulty.hex()))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    async with running(settings_for(tmp_path), biopsies.key, load_analysis=None) as cloud:
        await cloud.service.registry.publish(biopsies.bundle)
        device = await cloud.device()
        watching = asyncio.create_task(device.verdicts(len(sent), timeout_s=120))
        await device.submit(sent)
        verdicts = await watching
    undecided = [key for key, verdict in verdicts.items() if verdict.decision == sample_pb2.DECISION_UNDECIDED]
    assert verdicts.keys() == {sample.sample_id for sample in sent}
    assert undecided == [faulty]
    assert verdicts[faulty].reason == ENDS_PROCESS


HANGING = """
import sys
if "cloud.service.analysis_child" in sys.orig_argv:
    import threading
    from cloud.service import load_analysis
    from shared.samples import Decision, Verdict, new_sample_id
    class Judge:
        def judge(self, values, crops=()):
            if any(float(row[0]) == MARK for row in values):
                threading.Event().wait()  # without the interpreter's lock: the event loop goes on
            return [Verdict(new_sample_id(), Decision.NORMAL, p_value=0.5) for _ in values]
    load_analysis.loader = lambda settings: lambda bundle: Judge()
"""


async def test_a_sample_whose_calculation_never_ends_is_undecided_and_the_others_are_judged(
    tmp_path, biopsies, monkeypatch
):
    rows = biopsies.normal[:8].copy()
    rows[3][0] = 12345.0
    sent = [message(values) for values in rows]
    (tmp_path / "sitecustomize.py").write_text(HANGING.replace("MARK", "12345.0"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    settings = settings_for(tmp_path, analysis=AnalysisSettings(batch_s=1))
    problems = set()
    async with running(settings, biopsies.key, load_analysis=None) as cloud:
        await cloud.service.registry.publish(biopsies.bundle)
        device = await cloud.device()
        watching = asyncio.create_task(device.verdicts(len(sent), timeout_s=120))
        await device.submit(sent)
        while not watching.done():
            problems.add(cloud.service.readiness()["analysis"])
            await asyncio.sleep(0.05)
        verdicts = await watching
    undecided = [key for key, verdict in verdicts.items() if verdict.decision == sample_pb2.DECISION_UNDECIDED]
    assert verdicts.keys() == {sample.sample_id for sample in sent}
    assert undecided == [sent[3].sample_id]
    assert verdicts[undecided[0]].reason == ENDS_PROCESS
    assert "the analysis process made no progress with a batch for 1 s and is started again" in problems


async def test_an_analysis_process_that_hangs_is_replaced_and_ends_with_its_service(tmp_path, biopsies):
    settings = settings_for(tmp_path)
    settings.data_dir.mkdir()
    (settings.data_dir / DATABASE_FILE).write_bytes(empty_database())
    reports, process = [], None

    async def note() -> None:
        reports.append(process.problem)

    listener = AnalysisListener(reports.append, reports.append, reports.append, note, note)
    process = AnalysisProcess(settings, biopsies.key.public_key(), "", listener, silent_s=8)
    keeping = asyncio.create_task(process.run())
    await until(lambda: process.pid is not None)
    await answer(process)
    first = process.pid
    os.kill(first, signal.SIGSTOP)
    await until(lambda: process.pid != first)
    assert not Path(f"/proc/{first}").exists(), "waited for, before the next one began"
    expected = "the analysis process gave no sign of life for 8 s and is started again"
    await until(lambda: reports == [expected, expected, ""])
    os.kill(process.pid, signal.SIGTERM)  # as systemd sends it to all processes: the service ends the child
    await answer(process)
    keeping.cancel()
    await asyncio.wait([keeping])
    await asyncio.to_thread(process.stop)
    assert has_ended(first)
    assert has_ended(process.pid)


async def test_what_breaks_the_rules_of_the_link_is_refused():
    here, there = socket.socketpair()
    link = await AnalysisLink.over(here)
    there.sendall((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(ConnectionFailedError, match="the limit is"):
        await link.receive()
    with pytest.raises(ConnectionFailedError, match="no report"):
        parsed_report(b"\xff\xff")
    there.sendall(b"\0\0")
    there.close()
    assert await link.receive() is None
    link.send(analysis_pb2.AnalysisReport(alive=True))  # is dropped
    link.close()


def test_reports_of_judged_samples_are_bounded_and_go_without_events_to_a_slow_reader():
    events = [PushedEvent("press-07", cursor, bytes(EVENT_BYTES // 2)) for cursor in range(1, 11)]
    judged = JudgedSamples([DeviceLoad("press-07", 10, 80)], events, 0.5)
    found = [judged_of(report.judged) for report in judged_reports(judged, with_events=True)]
    assert [event for part in found for event in part.events] == events
    assert [load for part in found for load in part.loads] == judged.loads
    assert max(sum(len(event.data) for event in part.events) for part in found) < 2 * EVENT_BYTES
    (alone,) = judged_reports(judged, with_events=False)
    assert judged_of(alone.judged) == JudgedSamples(judged.loads, [], 0.5)
