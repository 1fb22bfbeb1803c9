"""Normal ranges in a preprocessing's files, and in those of older bundles."""

import io

import numpy as np
import pytest

from shared.bundle import InputSpec
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from shared.preprocessing import ChannelRanges, ReadingSums, SeriesPreprocessor, TabularPreprocessor, measured_positions

CHANNELS = ("heat", "load")
ROWS = np.random.default_rng(0).normal([20.0, -3.0], [1.0, 0.1], (4000, 2))


def arrays_of(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    (data,) = files.values()
    with np.load(io.BytesIO(data)) as archive:
        return dict(archive)


@pytest.mark.parametrize("kind", [TabularPreprocessor, SeriesPreprocessor])
def test_ranges_are_stored_and_older_files_give_two_deviations(
    kind: type[TabularPreprocessor] | type[SeriesPreprocessor],
) -> None:
    is_series = kind is SeriesPreprocessor
    spec = InputSpec(channels=CHANNELS, window_length=4 if is_series else 0, window_stride=4 if is_series else 0)
    fitted = kind.fit(ROWS.reshape(-1, 4, 2) if is_series else ROWS, spec)
    arrays = arrays_of(fitted.files())
    again = kind.from_arrays(arrays, spec).ranges()
    assert again.low == pytest.approx(np.quantile(ROWS, 0.01, axis=0))
    assert again.high == pytest.approx(np.quantile(ROWS, 0.99, axis=0))
    older = {name: array for name, array in arrays.items() if name != "range"}
    assert kind.from_arrays(older, spec).ranges().low == pytest.approx(ROWS.mean(0) - 2 * ROWS.std(0), rel=1e-3)


def test_the_mode_is_no_measured_channel() -> None:
    spec = InputSpec(channels=("mode", *CHANNELS), mode_channel="mode", modes=(0.0, 1.0))
    rows = np.column_stack([np.arange(len(ROWS)) % 2, ROWS])
    ranges = fit_preprocessor(Modality.TABULAR, rows, spec).ranges()
    assert ranges is not None
    assert ranges.channels == CHANNELS
    assert measured_positions(spec).tolist() == [1, 2]


def test_differences_name_the_furthest_channels_first_and_three_at_most() -> None:
    names = tuple("abcde")
    ranges = ChannelRanges.from_moments(names, np.zeros(5), np.ones(5), None)
    sums = ReadingSums.empty(ranges.mean)
    sums.add(np.array([[1.0, 9.0, -5.0, 3.0, 2.5]] * 4) + np.random.default_rng(0).normal(size=(4, 5)))
    found = ranges.differences(sums)
    assert [text[0] for text in found] == ["b", "c", "d"]
    assert found[0].endswith("against -2 to 2")


def test_sums_do_not_depend_on_how_readings_are_split() -> None:
    whole, parts = ReadingSums.empty(ROWS[0]), ReadingSums.empty(ROWS[0])
    whole.add(ROWS)
    for start in range(0, len(ROWS), 7):
        part = ReadingSums.empty(ROWS[0])
        part.add(ROWS[start : start + 7])
        parts = parts.plus(part)
    assert np.allclose(whole.moments(), parts.moments())
    assert np.allclose(whole.moments()[1], ROWS.std(axis=0))


def test_a_constant_channel_is_named_for_a_change_that_the_model_sees() -> None:
    rows = np.column_stack([ROWS[:, 0], np.zeros(len(ROWS))])
    ranges = TabularPreprocessor.fit(rows, InputSpec(channels=CHANNELS)).ranges()
    for value, named in ((1e-20, []), (1e-3, []), (2.0, ["load 2 against 0"])):
        sums = ReadingSums.empty(ranges.mean)
        sums.add(np.column_stack([ROWS[:, 0], np.full(len(ROWS), value)]))
        assert ranges.differences(sums) == named
