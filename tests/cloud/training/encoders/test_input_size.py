"""Size that images have in the encoder."""

import pytest

from cloud.training.encoders.input_size import MIN_SIDE_PIXELS, choose_size
from cloud.training.settings import MAX_PIXELS
from shared.errors import DataError


def test_images_keep_their_native_size() -> None:
    assert choose_size([(300, 300)] * 5, MAX_PIXELS) == (304, 304)
    assert choose_size([(640, 640), (640, 640), (100, 90)], MAX_PIXELS) == (640, 640)
    assert choose_size([(1080, 1920)], MAX_PIXELS) == (1088, 1920)


def test_large_frames_shrink_to_the_limit_and_keep_their_aspect_ratio() -> None:
    height, width = choose_size([(1080, 1920)], 640 * 640)
    assert height * width < 1.05 * 640 * 640
    assert width / height == pytest.approx(1920 / 1080, rel=0.05)


def test_small_images_are_enlarged() -> None:
    assert choose_size([(32, 64)], MAX_PIXELS) == (MIN_SIDE_PIXELS, 2 * MIN_SIDE_PIXELS)


@pytest.mark.parametrize("shape", [(1, 4000), (4000, 1), (8, 8), (5000, 5000)])
def test_every_chosen_size_is_valid_for_the_encoder(shape: tuple[int, int]) -> None:
    assert all(side % 16 == 0 and side >= 32 for side in choose_size([shape], MAX_PIXELS))


def test_an_empty_set_of_images_is_refused() -> None:
    with pytest.raises(DataError, match="give images"):
        choose_size([], MAX_PIXELS)
