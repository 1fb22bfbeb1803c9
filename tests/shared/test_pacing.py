"""Tests of the size of steps."""

import pytest

from shared.pacing import Pace


@pytest.mark.parametrize(("seconds", "size"), [(0.0, 100), (0.04, 16), (0.1, 8), (10.0, 1)])
def test_steps_follow_their_duration(seconds: float, size: int) -> None:
    pace = Pace(0.05, 16, 100)
    for _ in range(3 if seconds == 0.0 else 1):
        pace.measured(seconds)
    assert pace.size == size
    assert pace.longest_s == seconds
