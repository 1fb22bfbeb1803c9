"""Corrupted copies of held-out samples."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloud.training.judgement.pixels import copies_of
from cloud.training.modalities import training_modality
from shared.bundle import InputSpec
from shared.modality import Modality

SPEC = InputSpec(
    channels=("a", "b", "mode", "pump=on", "pump=off"),
    mode_channel="mode",
    modes=(0.0, 1.0),
    categories={"pump": ("on", "off")},
)


def normal(modality: Modality) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    match modality:
        case Modality.TABULAR:
            return rng.normal(size=(30, 5))
        case Modality.SERIES:
            return rng.normal(size=(30, 24, 5))
        case Modality.IMAGE:
            return rng.integers(60, 190, (6, 48, 64, 3), dtype=np.uint8)
        case _:
            return rng.integers(60, 190, (6, 4, 32, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize("modality", list(Modality))
def test_each_copy_is_changed_and_depends_on_the_seed_alone(modality: Modality) -> None:
    samples = normal(modality)
    before = samples.copy()
    make = training_modality(modality).corrupted_copies
    first, again, other = (make(samples, SPEC, seed) for seed in (3, 3, 4))
    assert np.array_equal(samples, before)
    assert first.keys() == again.keys() == other.keys()
    for kind, copies in first.items():
        assert len(copies)
        assert copies.dtype == samples.dtype
        assert copies.shape[1:] == samples.shape[1:]
        assert np.array_equal(copies, again[kind])
        assert not np.array_equal(copies, other[kind])
        assert not (copies[:, np.newaxis] == samples).reshape(len(copies), len(samples), -1).all(axis=2).any()


@pytest.mark.parametrize("modality", [Modality.TABULAR, Modality.SERIES])
def test_modes_and_texts_stay_as_they_are(modality: Modality) -> None:
    samples = normal(modality)
    for copies in training_modality(modality).corrupted_copies(samples, SPEC, 0).values():
        kept = copies[..., 2:].reshape(len(copies), -1)
        originals = samples[..., 2:].reshape(len(samples), -1)
        assert all(any(np.array_equal(row, original) for original in originals) for row in kept)


def test_a_standing_scene_is_not_frozen_or_reversed() -> None:
    still = np.repeat(normal(Modality.VIDEO)[:, :1], 4, axis=1)
    copies = training_modality(Modality.VIDEO).corrupted_copies(still, SPEC, 0)
    assert not len(copies["frozen motion"])
    assert not len(copies["reversed motion"])
    assert len(copies["object that appears"])


def test_missing_readings_and_constant_channels_are_no_obstacle() -> None:
    windows = normal(Modality.SERIES)
    windows[:, :, 0] = np.nan
    windows[:, :, 1] = 5.0
    copies = training_modality(Modality.SERIES).corrupted_copies(windows, SPEC, 0)
    assert len(copies["level shift"])
    assert not len(copies["stuck channel"])  # a constant channel cannot stick


def test_large_images_get_fewer_copies() -> None:
    small, large = (np.zeros((1, side, side, 3), dtype=np.uint8) for side in (64, 1024))
    assert copies_of(large) < copies_of(small)
