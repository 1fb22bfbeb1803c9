"""Corrupted copies of images, and the masks of the changed pixels."""

import numpy as np
import pytest

from cloud.training.encoders.corruption import corrupt, is_bilevel


def picture(seed: int, height: int = 96, width: int = 80) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 200, (height, width, 3)).astype(np.uint8)


def test_the_mask_marks_exactly_the_changed_pixels() -> None:
    generator, image = np.random.default_rng(0), picture(1)
    for _ in range(40):
        copy, change = corrupt(image, picture(2), generator)
        assert copy.shape == image.shape
        assert copy.dtype == np.uint8
        np.testing.assert_array_equal(change, np.abs(copy.astype(int) - image.astype(int)).max(axis=2))


def test_most_of_an_image_stays_unchanged() -> None:
    generator, image = np.random.default_rng(0), picture(1, 256, 256)
    shares = [float((corrupt(image, picture(2, 256, 256), generator)[1] > 0).mean()) for _ in range(60)]
    assert max(shares) < 0.6
    assert 0.02 < np.median(shares) < 0.25
    assert min(shares) > 0


def test_a_large_image_has_more_corrupted_places_of_the_same_size() -> None:
    """Check that the frequency of small corruptions per area does not depend on the image size."""
    import cv2

    generator = np.random.default_rng(0)
    small = {}
    for side in (160, 480):
        image, other, found = picture(1, side, side), picture(2, side, side), 0
        for _ in range(200 * 160**2 // side**2):
            change = corrupt(image, other, generator)[1]
            sizes = cv2.connectedComponentsWithStats((change > 0).astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
            found += int(((sizes > 12) & (sizes < 300)).sum())
        small[side] = found
    assert 0.4 < small[480] / small[160] < 2.5


def test_copies_of_a_bilevel_scan_stay_bilevel() -> None:
    generator = np.random.default_rng(0)
    board = np.where(picture(1) > 128, 255, 0).astype(np.uint8)
    assert is_bilevel(board)
    assert not is_bilevel(picture(1))
    for _ in range(20):
        copy, _ = corrupt(board, board[::-1], generator, bilevel=True)
        assert set(np.unique(copy)) <= {0, 255}


@pytest.mark.parametrize("level", [0, 255])
def test_a_blank_scan_can_be_corrupted(level: int) -> None:
    blank, generator = np.full((64, 64, 3), level, dtype=np.uint8), np.random.default_rng(0)
    changed = [corrupt(blank, blank, generator, bilevel=True)[1].any() for _ in range(20)]
    assert np.mean(changed) > 0.8


def test_equal_seeds_give_equal_copies() -> None:
    first, second = (corrupt(picture(1), picture(2), np.random.default_rng(5))[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("size", [(8, 8), (16, 200)])
def test_small_and_narrow_images_can_be_corrupted(size: tuple[int, int]) -> None:
    generator, image = np.random.default_rng(0), picture(1, *size)
    for _ in range(60):
        assert corrupt(image, image, generator)[0].shape == image.shape
