"""Values beside their normal range, in figures and in words."""

import math

import numpy as np
import pytest

from cloud.evidence.region import marked_region
from cloud.evidence.series import Window, _placed
from cloud.evidence.standing import NormalRange, Side, figure, standing_words
from shared.preprocessing.base import compress, expand

TEMPERATURE = NormalRange(88.0, 91.0, 0.8)


@pytest.mark.parametrize(
    ("value", "side", "words"),
    [
        (79.65, Side.BELOW, "Temperature 79.65 is too low: normal is 88 to 91"),
        (95.2, Side.ABOVE, "Temperature 95.2 is too high: normal is 88 to 91"),
        (90.0, Side.WITHIN, "Temperature 90 is within its normal range of 88 to 91"),
        (91.0001, Side.WITHIN, "Temperature 91 is within its normal range of 88 to 91"),
        (math.nan, Side.MISSING, "Temperature is missing; normal is 88 to 91"),
        (math.inf, Side.ABOVE, "Temperature infinite is too high: normal is 88 to 91"),
        (-math.inf, Side.BELOW, "Temperature minus infinite is too low: normal is 88 to 91"),
    ],
)
def test_a_value_is_too_low_too_high_or_within(value: float, side: Side, words: str) -> None:
    assert TEMPERATURE.side(value) is side
    assert standing_words("Temperature", value, TEMPERATURE) == words


def test_a_channel_that_was_constant_has_a_range_of_one_value() -> None:
    constant = NormalRange(4.0, 4.0, 1.0)
    assert constant.words == "4"
    assert constant.side(4.0) is Side.WITHIN
    assert constant.side(5.0) is Side.ABOVE
    assert standing_words("x", 1.0, None) == "x is 1; its normal range is unknown"


@pytest.mark.parametrize(
    ("value", "width", "text"),
    [
        (79.65, 3.0, "79.65"),
        (0.0, 1.0, "0"),
        (1234567.0, 100.0, "1234567"),
        (0.00123456, 0.001, "0.00123"),
        (1e300, 1.0, "1e+300"),
        (32.123456, 0.01, "32.1235"),
        (-1.1e-06, 64.0, "0"),
    ],
)
def test_figures_have_as_many_digits_as_their_range_needs(value: float, width: float, text: str) -> None:
    assert figure(value, width) == text


def test_compressed_deviations_expand_to_what_they_were() -> None:
    z = np.array([-1e6, -40.0, -3.0, -0.5, 0.0, 2.9, 3.1, 1e9])
    np.testing.assert_allclose(expand(compress(z)), z, rtol=1e-9)


def window(at_s: float, first: int, length: int = 8, origin: str = "") -> Window:
    rows = np.arange(first, first + length, dtype=np.float32)
    return Window(at_s, origin, np.stack([rows, np.sin(rows)], axis=1))


def test_windows_are_placed_by_shared_rows_then_by_time() -> None:
    judged, before, after, far = window(100.0, 50), window(98.0, 46), window(102.0, 54), window(110.0, 70)
    found, interval_s = _placed(judged, [far, after, before], stride=4)
    assert interval_s == pytest.approx(0.5)
    assert sorted(offset for offset, _ in found) == [-4, 4, 20]


def test_windows_are_placed_by_the_rows_in_their_origins() -> None:
    judged, other = window(100.0, 50, origin="a.csv:51"), window(100.0, 0, origin="a.csv:1")
    found, interval_s = _placed(judged, [other], stride=8)
    assert [offset for offset, _ in found] == [-50]
    assert interval_s is None  # both were captured at once, as a file that is read quickly


def test_windows_that_nothing_places_are_left_out() -> None:
    found, interval_s = _placed(window(100.0, 50), [window(90.0, 0), window(120.0, 200)], stride=8)
    assert found == []
    assert interval_s is None


def test_a_constant_overlap_places_nothing() -> None:
    still = Window(1.0, "", np.ones((8, 2), np.float32))
    assert _placed(still, [Window(2.0, "", np.ones((8, 2), np.float32))], stride=2)[0] == []


def test_the_marked_region_is_named_by_its_place() -> None:
    cells = np.full((30, 30), 60, np.uint8)
    assert marked_region(cells) is None
    cells[1:5, 24:29], cells[20, 3] = 230, 130
    region = marked_region(cells)
    assert region is not None
    assert (region.words, region.regions) == ("upper right", 2)
    assert region.share == pytest.approx(20 / 900)
    assert region.box == pytest.approx((24 / 30, 1 / 30, 5 / 30, 4 / 30))
