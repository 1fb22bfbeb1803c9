"""Backlog of the admission: its sums follow the store, and a count corrects them."""

import asyncio

import pytest

from cloud.limit_settings import LimitSettings
from cloud.service import backlog_count
from cloud.service.admission import Admission, Load
from cloud.service.analysis_port import DeviceLoad
from cloud.service.backlog_count import count_backlog
from cloud.store.judging import Backlog
from tests.cloud.console.filled_store import SHUTTLE, Fleet


def admission(**counts: int) -> Admission:
    return Admission(LimitSettings(backlog_samples=100), Backlog(counts, {name: 8 * n for name, n in counts.items()}))


def test_what_is_counted_twice_does_not_make_the_sum_wrong_for_others() -> None:
    sums = admission(one=2, two=5)
    sums.leave("one", 4, 100)
    assert sums.backlog == 5
    sums.judged([DeviceLoad("two", 5, 40)], 0.1)
    assert sums.backlog == 0


def test_a_count_includes_what_was_stored_and_judged_meanwhile_and_what_is_being_stored() -> None:
    sums = admission(one=50)
    with sums.admit("two", Load(4, 100, 32)) as admitted:
        with sums.recounting() as recount:
            with sums.admit("three", Load(3, 100, 24)) as stored:
                stored.stored = Load(2, 60, 16)
            sums.judged([DeviceLoad("one", 1, 8)], 0.1)
            recount(Backlog({"one": 10}, {"one": 80}), None)
        assert sums.backlog == 10 + 4 + 2 - 1
        admitted.stored = Load(1, 10, 8)
    assert sums.backlog == 10 + 1 + 2 - 1


def test_two_counts_at_once_each_know_the_changes_since_they_began() -> None:
    sums = admission(one=50)
    with sums.recounting() as first:
        sums.judged([DeviceLoad("one", 1, 8)], 0.1)
        with sums.recounting() as second:
            sums.judged([DeviceLoad("one", 2, 16)], 0.1)
            second(Backlog({"one": 49}, {"one": 392}), None)
            assert sums.backlog == 49 - 2
        sums.judged([DeviceLoad("one", 4, 32)], 0.1)
        first(Backlog({"one": 50}, {"one": 400}), None)
        assert sums.backlog == 50 - 1 - 2 - 4
    assert sums.backlog == 50 - 1 - 2 - 4


async def test_a_process_that_works_alone_corrects_its_sum(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_count, "COUNT_ALONE_EVERY_S", 0.02)
    for _ in range(3):
        await fleet.leave_waiting(SHUTTLE)
    sums = admission(gone=99)  # a device that may send nothing, because of samples that wait no more
    assert sums.refusal(SHUTTLE.device_id, Load(2, 10, 8)) is not None

    def no_failure(error: Exception) -> None:
        raise AssertionError(error)

    counting = asyncio.create_task(count_backlog(fleet.store, sums, no_failure, None))
    async with asyncio.timeout(10):
        while sums.backlog != 3:
            await asyncio.sleep(0.01)
    counting.cancel()
    assert sums.refusal("another", Load(2, 10, 8)) is None
