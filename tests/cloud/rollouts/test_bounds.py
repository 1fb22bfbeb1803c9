"""Confidence bounds of a share hold at every look."""

import math

import numpy as np
import pytest

from cloud.rollouts.bounds import share_bounds


def test_bounds_contain_the_share_at_every_look():
    """Of many sequences at most the stated share ever leaves its bounds, although each is looked at 60 times."""
    random, error, share = np.random.default_rng(3), 0.1, 0.05
    looks = np.unique(np.geomspace(1, 4000, 60).astype(int))
    ever_wrong = 0
    for _ in range(300):
        hits = np.cumsum(random.random(4000) < share)
        bounds = [share_bounds(float(hits[count - 1]), float(count), error) for count in looks]
        ever_wrong += any(not low <= share <= high for low, high in bounds)
    assert ever_wrong <= error * 300


@pytest.mark.parametrize(("hits", "count"), [(0, 0), (0, 50), (50, 50), (1, 10), (400, 1000), (5, 10**9)])
def test_bounds_are_ordered_and_hold_what_was_seen(hits, count):
    low, high = share_bounds(hits, count, 0.01)
    assert 0 <= low <= (hits / count if count else 0) <= high <= 1
    assert (low, high) == (0, 1) if count == 0 else math.isfinite(low + high)


def test_more_samples_narrow_the_bounds():
    widths = [high - low for low, high in (share_bounds(0.05 * n, n, 0.01) for n in (20, 200, 2000, 20_000))]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.02
