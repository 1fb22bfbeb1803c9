"""Copies of samples in the training data are counted."""

import numpy as np
from numpy.typing import NDArray

from cloud.training.judgement.copies import count_copies
from cloud.training.judgement.figures import Copies
from cloud.training.samples.windows import cut_windows


def test_copies_of_images_are_counted_across_the_parts_and_within_all() -> None:
    different = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    every = np.repeat(different, 10, axis=0)
    order = np.random.default_rng(1).permutation(40)
    found = count_copies(every[order[:20]], every[order[20:]], has_time=False)
    assert found == Copies(held_out=20, normals=36)
    assert count_copies(different[:2], different[2:], has_time=False) == Copies()


def test_rows_with_missing_values_and_negative_zeros_are_compared_by_value() -> None:
    train = np.array([[0.0, np.nan], [1.0, 2.0]])
    held_out = np.array([[-0.0, np.nan], [1.0, 2.0 + 1e-12]])
    assert count_copies(train, held_out, has_time=False) == Copies(held_out=1, normals=1)


def windows(readings: NDArray[np.float64]) -> NDArray[np.float64]:
    return cut_windows(readings, 16, 1)


def test_overlap_and_standstill_of_a_series_are_no_copies_and_a_repeated_recording_is() -> None:
    recording = np.random.default_rng(0).normal(size=(100, 2))
    assert count_copies(windows(recording[:60]), windows(recording[60:]), has_time=True) == Copies()
    still = windows(np.tile([1.0, np.nan], (50, 1)))
    assert count_copies(still, still, has_time=True) == Copies()
    assert count_copies(windows(recording), windows(recording[30:80]), has_time=True) == Copies(held_out=35, normals=35)
