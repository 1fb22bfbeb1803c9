"""Remaining time of "quantising and comparing", on a clock that the test moves."""

from cloud.training.artefact_progress import ATTEMPTS, INT8_RATIO, STAGE, ArtefactProgress
from cloud.training.progress import StageClock
from tests.cloud.training.test_progress import Clock


def test_the_remaining_time_follows_from_the_parts_already_timed() -> None:
    clock = Clock()
    shown = StageClock(clock)
    progress = ArtefactProgress(shown.update, 2, clock)
    assert (shown.stage, shown.progress()) == (STAGE, "0 s so far")
    clock.now_s += 3
    progress.compared()
    assert shown.remaining() == f"about {2 * INT8_RATIO * 3:.0f} s left"
    clock.now_s += 12
    progress.attempted()
    progress.built()
    assert shown.remaining() == "about 12 s left"  # as the INT8 artefact before
    clock.now_s += 7
    assert shown.remaining() == "about 5 s left"
    clock.now_s += 5
    progress.built()
    assert (shown.share, shown.remaining()) == (1.0, "")


def test_a_ranking_shows_its_own_end_and_the_attempts_that_follow() -> None:
    clock = Clock()
    shown = StageClock(clock)
    progress = ArtefactProgress(shown.update, 2, clock)
    clock.now_s += 2
    progress.compared()
    clock.now_s += 4
    progress.attempted()
    clock.now_s += 10
    progress.ranked(0.25)
    attempts = ATTEMPTS + 1 + ATTEMPTS  # of this artefact, and of the next
    assert shown.remaining() == "about 1 min 22 s left"
    assert 30 + attempts * 4 == 82
    clock.now_s += 30
    progress.ranked(1.0)
    assert shown.remaining() == "about 52 s left"
    for left in (48, 44, 40, 36):
        clock.now_s += 4
        progress.attempted()
        assert shown.remaining() == f"about {left} s left"
    progress.built()
    assert shown.remaining() == "about 20 s left"  # without the ranking, which is made once
