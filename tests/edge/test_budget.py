"""The byte budget follows a link that is slow, and only such a one; it never goes beyond what is configured."""

import threading

import numpy as np
import pytest

from edge.routing.audit_reserve import AuditNeed
from edge.routing.budget import LINK_SHARE, UplinkLoad, UploadBudget
from edge.settings import RouterSettings
from edge.token_bucket import TokenBucket
from tests.edge.clock import Clock


def load(bytes: int, throughput: float, *, connected: bool = True, share: float = 0.0) -> UplinkLoad:
    return UplinkLoad(bytes, share, connected, throughput, 0.0)


def budget_of(clock: Clock, **settings: object) -> UploadBudget:
    return UploadBudget(RouterSettings.model_validate({"max_queue_s": 100, **settings}), clock)


def test_a_slow_link_sets_the_budget_until_the_queue_is_half_gone() -> None:
    budget = budget_of(Clock())
    assert not budget.counts_bytes
    budget.follow(load(50_000, 1000.0))
    assert budget.bytes_per_s == 0
    assert budget.pressure == pytest.approx(0.5)
    budget.follow(load(110_000, 1000.0))
    assert budget.bytes_per_s == pytest.approx(LINK_SHARE * 1000.0)
    budget.follow(load(60_000, 1000.0))  # still more than half: it must not swing to and fro
    assert budget.bytes_per_s > 0
    budget.follow(load(40_000, 1000.0))
    assert budget.bytes_per_s == 0


def test_the_configured_rate_is_never_exceeded() -> None:
    budget = budget_of(Clock(), max_bytes_per_s=500)
    budget.follow(load(10**9, 10_000.0))
    assert budget.bytes_per_s == 500
    budget.follow(load(10**9, 100.0))
    assert budget.bytes_per_s == pytest.approx(80.0)


def test_without_a_connection_the_spool_fills_at_the_configured_rate() -> None:
    budget = budget_of(Clock())
    budget.follow(load(10**9, 10.0, connected=False))
    assert budget.bytes_per_s == 0
    assert budget.grant(np.full(1000, 1e6)).others == 1000


def test_a_source_that_reserves_while_the_link_becomes_slow_sees_the_new_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = budget_of(Clock())
    parts: list[float] = []

    class Lock:
        """Lock of the budget that another source takes as soon as it is free."""

        def __init__(self) -> None:
            self._lock, self._reserves = threading.Lock(), True

        def __enter__(self) -> None:
            self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()
            if self._reserves:
                self._reserves = False
                parts.append(budget.reserve("cam", AuditNeed(10.0, 0.01, 100.0, 100.0)))

    monkeypatch.setattr(budget, "_lock", Lock())
    budget.follow(load(110_000, 1000.0))
    assert parts == [1.0]


def test_a_source_that_ended_keeps_nothing_of_the_budget() -> None:
    budget = budget_of(Clock(), max_samples_per_s=10)
    full = budget.available_bytes(), budget.carried_share()
    for source, rate_per_s in (("ended", 1000.0), ("cam", 10.0)):
        budget.reserve(source, AuditNeed(rate_per_s, 0.1))
    assert budget.audit_part < 1
    budget.release("ended")
    assert budget.audit_part == 1
    budget.release("cam")
    assert (budget.available_bytes(), budget.carried_share()) == full


def test_a_limit_of_0_never_follows() -> None:
    budget = budget_of(Clock(), max_queue_s=0)
    budget.follow(load(10**9, 1.0))
    assert budget.bytes_per_s == budget.pressure == 0


def test_over_a_slow_link_no_more_is_granted_than_it_carries() -> None:
    clock = Clock()
    budget = budget_of(clock, burst_s=2)
    budget.follow(load(10**6, 1000.0))
    granted = 0
    for _ in range(600):
        clock.now += 0.1
        granted += budget.grant(np.full(10, 100.0)).others * 100
    assert granted <= LINK_SHARE * 1000.0 * (clock.now + 2)
    assert granted >= LINK_SHARE * 1000.0 * clock.now * 0.9


def test_a_full_spool_is_pressure_too() -> None:
    budget = budget_of(Clock())
    budget.follow(load(10**6, 0.0, share=0.9))
    assert budget.pressure == pytest.approx(0.9)


def test_a_bucket_that_changes_its_rate_keeps_its_tokens() -> None:
    clock = Clock()
    bucket = TokenBucket(10.0, 10.0, clock)
    bucket.spend(90)
    bucket.change_rate(5.0)
    assert bucket.level() == pytest.approx(10.0)
    clock.now += 4
    assert bucket.level() == pytest.approx(30.0)
    bucket.change_rate(1.0)
    assert bucket.level() == pytest.approx(10.0) == bucket.capacity
    bucket.change_rate(0.0)
    assert bucket.level() == float("inf")
