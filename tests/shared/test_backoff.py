"""Waits between attempts."""

from shared.backoff import HALF_JITTER, Backoff


def test_waits_double_up_to_the_bound_and_start_again_after_a_success() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next_s() for _ in range(4)] == [0.5, 1.0, 2.0, 3.0]
    assert backoff.failures == 4
    backoff.reset()
    assert (backoff.failures, backoff.next_s()) == (0, 0.5)


def test_jitter_cuts_off_at_most_its_share() -> None:
    draws = iter([0.0, 1.0, 0.5])
    backoff = Backoff(1.0, 1.0, jitter=HALF_JITTER, draw=lambda: next(draws))
    assert [backoff.next_s() for _ in range(3)] == [1.0, 0.5, 0.75]


def test_many_failures_do_not_overflow() -> None:
    backoff = Backoff(1.0, 60.0)
    assert [backoff.next_s() for _ in range(5000)][-1] == 60.0
