"""Pixel metrics of anomaly maps against masks."""

import numpy as np
import pytest

from cloud.evaluation.pixels import pixel_figures, pro
from shared.errors import DataError


def masks_with(*regions: tuple[int, int, int, int]) -> list[np.ndarray]:
    mask = np.zeros((64, 48), dtype=bool)
    for top, bottom, left, right in regions:
        mask[top:bottom, left:right] = True
    return [mask, np.zeros_like(mask)]


def test_a_perfect_map_and_a_blind_one() -> None:
    masks = masks_with((10, 20, 5, 15))
    perfect = pixel_figures([mask.astype(float) for mask in masks], masks)
    assert perfect == {"pixel_auroc": 1.0, "pro": pytest.approx(1.0, abs=0.01)}
    noise = np.random.default_rng(0).random((2, 64, 48))
    blind = pixel_figures(list(noise), masks)
    assert blind["pixel_auroc"] == pytest.approx(0.5, abs=0.08)
    assert blind["pro"] == pytest.approx(0.15, abs=0.06)  # half of the limit


def test_a_small_region_counts_as_much_as_a_large_one() -> None:
    masks = masks_with((0, 40, 0, 20), (50, 54, 30, 34))
    large_only = masks[0].astype(float)
    large_only[50:54] = 0.0
    figures = pixel_figures([large_only, np.zeros((64, 48))], masks)
    assert figures["pixel_auroc"] > 0.98
    assert pro([large_only, np.zeros((64, 48))], masks) == pytest.approx(0.5, abs=0.05)


def test_maps_of_patches_are_enlarged_and_large_masks_shrunk() -> None:
    mask = np.zeros((1024, 1024), dtype=bool)
    mask[256:512, 256:512] = True
    coarse = np.zeros((8, 8))
    coarse[2:4, 2:4] = 1.0
    assert pixel_figures([coarse], [mask])["pixel_auroc"] > 0.97
    with pytest.raises(DataError):
        pixel_figures([coarse], [np.zeros_like(mask)])
