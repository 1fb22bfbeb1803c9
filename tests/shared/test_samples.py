"""Sample ids are UUIDv7 in ascending order."""

import os
import signal
import sys
import threading
import time
import uuid

import numpy as np
import pytest

from shared import samples
from shared.modality import Modality
from shared.samples import SampleBatch, new_sample_id


def test_ids_are_version_seven_of_now_and_in_order() -> None:
    before_ms = time.time_ns() // 1_000_000
    ids = [new_sample_id() for _ in range(20_000)]
    after_ms = time.time_ns() // 1_000_000

    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert {(one.version, one.variant) for one in ids} == {(7, uuid.RFC_4122)}
    # A burst of more than 4096 ids a millisecond runs ahead of the clock by the least amount.
    assert before_ms <= ids[0].int >> 80 <= ids[-1].int >> 80 <= after_ms + len(ids) // 2048


def test_ids_of_many_threads_are_distinct_and_each_thread_sees_them_rise() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    made: list[list[uuid.UUID]] = [[] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda ids=ids: ids.extend(new_sample_id() for _ in range(5000))) for ids in made
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert all(ids == sorted(ids) for ids in made)
    assert len({one for ids in made for one in ids}) == 20_000


def test_ids_rise_even_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    make = samples._SampleIds().new
    now_ns = 1_700_000_000_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    ids = [*make(1000), *make(1), *make(2000)]
    now_ns -= 3_600_000_000_000
    ids += [one for _ in range(6000) for one in make(1)]
    now_ns += 7_200_000_000_000
    ids += make(1)

    assert ids == sorted(set(ids))
    assert ids[-1].int >> 80 == now_ns // 1_000_000


def test_forked_processes_make_different_ids() -> None:
    reader, writer = os.pipe()
    with samples._SAMPLE_IDS._lock:  # simulates another thread that makes one at the same time
        child = os.fork()
    if child == 0:
        signal.alarm(10)
        os.write(writer, new_sample_id().bytes)
        os._exit(0)
    ours = new_sample_id()
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reader, 16) != ours.bytes
    os.close(reader)
    os.close(writer)


def test_a_batch_is_as_long_as_its_time_stamps() -> None:
    batch = SampleBatch("press", Modality.TABULAR, np.zeros((3, 2), np.float32), np.zeros(3), ["a", "b", "c"])
    assert len(batch) == 3
    assert list(batch.rejections) == []
