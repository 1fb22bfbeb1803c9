"""Pictures of the console: heat maps over images, thumbnails."""

import numpy as np
import pytest

from cloud.evidence.pictures import MAP_QUIET, fitted, overlay, overlay_png, picture_png, thumbnail_png
from shared.images import decode_image


def test_overlay_is_transparent_where_normal_and_strong_where_anomalous() -> None:
    cells = np.full((8, 8), MAP_QUIET, np.uint8)
    cells[:, 4:] = 255
    rgba = overlay(cells, 80, 80)
    assert rgba.shape == (80, 80, 4)
    assert rgba[40, 5, 3] == 0
    assert rgba[40, 75, 3] > 200
    assert rgba[40, 75, 0] > rgba[40, 75, 1]  # towards red


def test_overlay_keeps_its_proportions() -> None:
    picture = decode_image(overlay_png(np.zeros((7, 14), np.uint8)))
    assert picture.shape[1] == 2 * picture.shape[0]


@pytest.mark.parametrize("shape", [(3000, 20, 1), (20, 3000, 3), (1, 1, 3), (480, 640, 3)])
def test_images_of_any_proportion_are_fitted_and_never_enlarged(shape: tuple[int, int, int]) -> None:
    pixels = np.full(shape, 90, np.uint8)
    small = fitted(pixels, 128, 80)
    assert small.shape[0] <= 80
    assert small.shape[1] <= 128
    assert small.shape[2] == 3
    assert small.shape[0] <= shape[0]
    assert decode_image(picture_png(pixels)).shape[2] == 3
    assert decode_image(thumbnail_png(pixels, np.full((4, 4), 255, np.uint8)))[0, 0, 0] > 150
