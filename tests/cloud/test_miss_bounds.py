"""Upper bounds of missed anomalies: the exact binomial ones, also for many audits."""

import pytest
from scipy.stats import beta, binom

from cloud.console.fleet.words import at_most_words, miss_words
from cloud.devices import miss_view
from cloud.miss_bounds import largest_share
from cloud.words import NO_FIGURE
from shared.samples import Decision


@pytest.mark.parametrize(
    ("hits", "count"), [(0, 1), (0, 312), (1, 2), (1, 312), (7, 20), (19, 20), (40, 100_000), (5000, 1_000_000)]
)
def test_the_bound_is_that_of_clopper_and_pearson(hits: int, count: int) -> None:
    found = largest_share(hits, count)
    assert found == pytest.approx(beta.ppf(0.95, hits + 1, count - hits), rel=1e-6)
    assert binom.cdf(hits, count, found) == pytest.approx(0.05, rel=1e-4)


def test_without_a_sample_or_without_a_normal_one_nothing_is_excluded() -> None:
    assert largest_share(0, 0) == 1.0
    assert largest_share(5, 5) == 1.0


def test_the_bound_in_words_is_rounded_up_and_names_its_audits() -> None:
    words = miss_words(miss_view({Decision.NORMAL: 750, Decision.UNDECIDED: 3}))
    assert words.replace("\u00a0", " ") == (
        "At most 0.40 % of what stayed (95 %), from 750 audits, none of them anomalous."
    )
    assert "2 of them anomalous" in miss_words(miss_view({Decision.NORMAL: 10, Decision.ANOMALOUS: 2}))
    assert "is unknown" in miss_words(miss_view({Decision.UNDECIDED: 9}))
    shown = [at_most_words(share).replace("\u00a0", " ") for share in (1.0, 0.1234, 0.0501, 0.00401, 0.00000001)]
    assert shown == ["≤ 100 %", "≤ 13 %", "≤ 5.1 %", "≤ 0.41 %", "≤ 0.001 %"]
    assert at_most_words(None) == NO_FIGURE
