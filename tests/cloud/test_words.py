"""Words of the console for p-values, durations, counts and times."""

import pytest

from cloud.words import (
    bytes_words,
    count_words,
    duration_words,
    moment_words,
    number_words,
    p_value_words,
    share_words,
)


def plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("p_value", "extrapolated", "words"),
    [
        (1.0, False, "100 in 100"),
        (0.42, False, "42 in 100"),
        (0.0999, False, "1 in 10"),
        (1 / 2400, False, "1 in 2 400"),
        (1 / 2400, True, "1 in 2 400†"),
        (1 / 99_600, True, "1 in 100 000†"),
        (1 / 1_140_000, True, "1 in 1.1 million†"),
        (1 / 270_000_000, True, "1 in 270 million†"),
        (2e-12, True, "1 in 500 billion†"),
        (1e-12, True, "under 1 in 10¹²†"),
        (float("nan"), False, "\N{EN DASH}"),
    ],
)
def test_p_values_are_said_as_odds(p_value: float, extrapolated: bool, words: str) -> None:
    assert plain(p_value_words(p_value, extrapolated)) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0841, "84 ms"), (0.9999, "1.0 s"), (2.44, "2.4 s"), (61, "61 s"), (7300, "2 h"), (-2.0, "\N{MINUS SIGN}2.0 s")],
)
def test_durations_take_the_unit_that_fits(seconds: float, words: str) -> None:
    assert plain(duration_words(seconds)) == words


def test_counts_sizes_and_shares() -> None:
    assert plain(count_words(1234567)) == "1 234 567"
    assert [plain(bytes_words(size)) for size in (999, 15_500_000, 2**62)] == ["999 B", "15.5 MB", "4612 PB"]
    assert [plain(share_words(*pair)) for pair in ((1, 8), (1, 10**6), (0, 10), (3, 0))] == [
        "12.5 %",
        "under 0.1 %",
        "0.0 %",
        "\N{EN DASH}",
    ]
    assert [number_words(value) for value in (None, float("inf"), 0.1234567, 1e9)] == [
        "\N{EN DASH}",
        "\N{EN DASH}",
        "0.12346",
        "1e+09",
    ]


def test_moments_are_in_utc_to_the_second() -> None:
    assert moment_words(1.8e9 + 0.9) == "2027-01-15 08:00:00 UTC"
