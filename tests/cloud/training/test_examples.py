"""Normal pictures in a bundle: a typical one first, then some that show what varies."""

import numpy as np

from cloud.training.examples import SIDE_PX, normal_examples
from shared.images import decode_image


def grey(level: int, side: int = 32) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


def test_the_golden_picture_is_typical_and_the_others_differ() -> None:
    images = np.stack([grey(level) for level in (10, 100, 101, 102, 103, 240)])
    found = normal_examples(images, 3)
    assert list(found) == ["picture_00", "picture_01", "picture_02"]
    levels = [int(decode_image(data.tobytes())[0, 0, 0]) for data in found.values()]
    assert levels[0] in (101, 102)
    assert set(levels[1:]) == {10, 240}


def test_examples_are_bounded_in_number_and_size() -> None:
    images = np.stack([grey(level, 2 * SIDE_PX) for level in (10, 20)])
    found = normal_examples(images, 8)
    assert len(found) == 2
    assert all(decode_image(data.tobytes()).shape == (SIDE_PX, SIDE_PX, 3) for data in found.values())
    assert normal_examples(images, 0) == {}
    assert normal_examples(images[:0], 8) == {}
