"""Bound of missed anomalies in words."""

from cloud.console.fleet.words import at_most_words, miss_words
from cloud.devices import miss_view
from cloud.words import NO_FIGURE
from shared.samples import Decision


def test_the_bound_in_words_is_rounded_up_and_names_its_audits() -> None:
    words = miss_words(miss_view({Decision.NORMAL: 935}))
    assert words.replace("\u00a0", " ") == (
        "At most 0.40 % of the accepted samples so far (95 %), from 935 audits, none of them anomalous."
    )
    assert "2 of them anomalous" in miss_words(miss_view({Decision.NORMAL: 10, Decision.ANOMALOUS: 2}))
    assert "is unknown" in miss_words(miss_view({}))
    shown = [at_most_words(share).replace("\u00a0", " ") for share in (1.0, 0.1234, 0.0501, 0.00401, 0.00000001)]
    assert shown == ["≤ 100 %", "≤ 13 %", "≤ 5.1 %", "≤ 0.41 %", "≤ 0.001 %"]
    assert at_most_words(None) == NO_FIGURE


def test_undecided_audits_count_as_anomalous() -> None:
    missed = miss_view({Decision.NORMAL: 750, Decision.UNDECIDED: 3})
    assert missed.at_most_share == miss_view({Decision.NORMAL: 750, Decision.ANOMALOUS: 3}).at_most_share
    assert "3 without a decision count as anomalous" in miss_words(missed).replace("\u00a0", " ")
