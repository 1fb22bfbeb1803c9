"""A thread that ends in a call is replaced, and the call is made again."""

import asyncio
import os
import threading
import time
from functools import partial

import pytest

from cloud.serving.verdicts import crashed, decode_batch, judge_batch
from cloud.serving.worker import Worker, run_in_halves
from shared.errors import WorkerCrashedError
from shared.samples import Decision, Verdict
from tests.cloud.serving.test_batcher import payload, waiting


async def test_a_call_that_ends_its_thread_is_made_again_on_a_new_one():
    threads: list[int] = []
    crashes: list[int] = []

    def ends_the_first_thread() -> str:
        threads.append(threading.get_ident())
        if len(threads) == 1:
            raise SystemExit(3)
        return "judged"

    worker = Worker("test", on_crash=lambda: crashes.append(1))
    assert await worker.run(ends_the_first_thread) == "judged"
    assert len(threads) == 2
    assert len(crashes) == 1
    assert await worker.run(lambda: "next") == "next"
    assert worker.stop(1)


async def test_a_call_that_always_ends_its_thread_fails_and_the_next_one_is_made():
    def always() -> None:
        raise SystemExit(3)

    worker = Worker("test")
    with pytest.raises(WorkerCrashedError):
        await worker.run(always)
    assert await worker.run(lambda: "next") == "next"
    assert worker.stop(1)


async def test_the_sample_that_ends_threads_is_undecided_and_the_rest_of_its_batch_is_judged():
    class Ends:
        def judge(self, values, crops):
            if any(item[0] == 7 for item in values):
                raise SystemExit(3)
            return [Verdict(p_value=float(item[0])) for item in values]

    batch = [(waiting(number), payload(7 if number == 5 else 0.5)) for number in range(16)]
    worker = Worker("test")
    judging = partial(judge_batch, Ends(), bundle_id="a-1-0", false_alarm_rate=0.01)
    verdicts = await run_in_halves(
        worker, judging, decode_batch(batch), lambda item, error: crashed(item.waiting, error, "a-1-0")
    )
    worker.stop(1)
    assert [item.sample_id for item in verdicts] == [item.sample_id for item, _ in batch]
    assert [number for number, item in enumerate(verdicts) if item.decision is Decision.UNDECIDED] == [5]
    assert "WorkerCrashedError" in verdicts[5].reason


async def test_a_forbidden_priority_does_not_stop_the_worker(monkeypatch):
    def forbidden(*args: int) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr("os.setpriority", forbidden)
    worker = Worker("test", niceness=5)
    assert await worker.run(lambda: "well") == "well"
    worker.stop(1)


async def test_a_worker_with_niceness_leaves_the_priority_of_other_threads():
    worker = Worker("test", niceness=7)
    assert await worker.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) == os.nice(0) + 7
    worker.stop(1)


async def test_the_worker_returns_raises_and_survives_cancellation():
    worker = Worker("test")
    assert await worker.run(lambda x: x + 1, 1) == 2
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    task = asyncio.create_task(worker.run(time.sleep, 0.2))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await worker.run(lambda: "well") == "well"
    assert worker.stop(1)


async def test_a_call_counts_as_busy_from_its_last_progress_on():
    worker, going_on = Worker("test"), threading.Event()
    assert worker.busy_s == 0
    running = asyncio.create_task(worker.run(going_on.wait))
    await asyncio.sleep(0.2)
    assert worker.busy_s > 0.1
    worker.made_progress()
    assert worker.busy_s < 0.1
    going_on.set()
    assert await running
    assert await worker.run(lambda: worker.busy_s) < 0.1
    worker.stop(1)
    assert worker.busy_s == 0
