"""Bound of what stays: valid at all times, exact, and close to the bound of one look."""

import numpy as np
import pytest
from scipy.stats import beta

from shared.miss_bound import LOG_WEIGHTS, at_most_share, log_evidence
from shared.miss_control import MissCounts, audits_needed, thresholds_that_hold


def test_the_bound_holds_at_all_times_together() -> None:
    """The evidence against the true share grows between two hits, so it is looked at before each hit and at the end."""
    runs, audits = 2000, 30_000
    for seed, share in enumerate((0.0005, 0.004, 0.03)):
        random = np.random.default_rng(seed)
        hits = np.cumsum(random.geometric(share, (runs, int(audits * share * 1.6) + 20)), axis=1)
        before = np.minimum(hits - 1, audits)
        found = np.where(hits <= audits, np.arange(hits.shape[1]), (hits <= audits).sum(axis=1, keepdims=True))
        missed = (log_evidence(found, before, share) >= np.log(20)).any(axis=1).mean()
        assert missed <= 0.05, share
        assert missed >= 0.005, "far from the promised 5 %: the bound is needlessly wide"


def test_it_bounds_the_mean_while_the_share_changes() -> None:
    """The mean of the shares so far, with bursts at the start or later."""
    random = np.random.default_rng(7)
    for period in (100, 400, 1500):
        shares = np.where(np.arange(3000) // period % 2 == 0, 0.04, 0.001)
        hits = np.cumsum(random.random((400, 3000)) < shares, axis=1)[:, ::10]
        audits = np.arange(1, 3001)[::10]
        means = (np.cumsum(shares) / np.arange(1, 3001))[::10]
        assert (log_evidence(hits, audits, means) >= np.log(20)).any(axis=1).mean() <= 0.05, period


@pytest.mark.parametrize(("hits", "audits"), [(0, 5), (0, 750), (3, 900), (40, 100_000), (5000, 1_000_000), (95, 100)])
def test_the_bound_is_where_the_evidence_is_enough(hits: int, audits: int) -> None:
    bound = float(at_most_share(hits, audits))
    assert log_evidence(hits, audits, bound) == pytest.approx(np.log(20), abs=1e-6)
    at_one_look = beta.ppf(0.95, hits + 1, audits - hits)
    assert at_one_look < bound < 1.7 * at_one_look
    assert at_most_share(hits, audits, 0.99) > bound


def test_without_audits_or_without_a_normal_one_nothing_is_excluded() -> None:
    assert at_most_share([0, 5, 1], [0, 5, 2]).tolist() == [1.0, 1.0, 1.0]


def test_the_audits_needed_are_the_least_number_that_suffices() -> None:
    counts = MissCounts()
    counts.add(0, anomalous=True, part=1.0, count=3)
    counts.add(0, anomalous=False, part=1.0, count=397)
    more = audits_needed(counts, 0.005)
    assert more is not None
    shown = [int(thresholds_that_hold(counts.with_normal(count), 0.005)) > 0 for count in (more - 1, more)]
    assert shown == [False, True]
    assert audits_needed(MissCounts(), 1e-12) is None


def test_the_weights_are_those_of_a_mixture() -> None:
    assert np.exp(LOG_WEIGHTS).sum() == pytest.approx(1.0, abs=1e-12)
