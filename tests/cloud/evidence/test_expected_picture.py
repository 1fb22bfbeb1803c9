"""The expected look of a picture: the marked region gives way to what normal pictures have there."""

import numpy as np
from numpy.typing import NDArray

from cloud.evidence.expected_picture import SIDE_PX, expected_picture
from tests.cloud.console.filled_store import photograph

RANDOM = np.random.default_rng(5)


def wall(top: int, left: int, side: int = 224) -> NDArray[np.uint8]:
    grey = photograph("brick.png")[top : top + side, left : left + side, np.newaxis]
    return np.repeat(grey, 3, axis=2)


def defective() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """A wall with a foreign piece, its map, and the wall before."""
    before = wall(100, 130)
    odd, cells = before.copy(), np.full((28, 28), 40, np.uint8)
    odd[80:124, 88:144] = photograph("gravel.png")[100:144, 100:156, np.newaxis]
    cells[10:16, 11:18] = 230
    return odd, cells, before


def test_a_foreign_piece_gives_way_to_wall() -> None:
    odd, cells, before = defective()
    normals = [wall(*(int(place) for place in RANDOM.integers(0, 288, 2))) for _ in range(6)]
    expected = expected_picture(odd, cells, normals)
    assert expected is not None
    region = (slice(84, 120), slice(92, 140))
    error = np.abs(expected[region].astype(int) - before[region].astype(int)).mean()
    assert error < 0.5 * np.abs(odd[region].astype(int) - before[region].astype(int)).mean()
    np.testing.assert_array_equal(expected[180:], odd[180:])  # far from the region nothing changes


def test_the_same_normal_picture_restores_the_wall() -> None:
    odd, cells, before = defective()
    expected = expected_picture(odd, cells, [before])
    assert expected is not None
    assert np.abs(expected[84:120, 92:140].astype(int) - before[84:120, 92:140].astype(int)).mean() < 12


def test_without_a_region_or_a_normal_picture_there_is_none() -> None:
    odd, cells, before = defective()
    assert expected_picture(odd, np.full((28, 28), 40, np.uint8), [before]) is None
    assert expected_picture(odd, np.full((28, 28), 255, np.uint8), [before]) is None  # nothing is left around it
    assert expected_picture(odd, cells, []) is None


def test_pictures_of_any_size_are_bounded() -> None:
    large = np.repeat(np.repeat(wall(0, 0, 300), 8, axis=0), 9, axis=1)
    cells = np.full((10, 10), 20, np.uint8)
    cells[4, 4] = 250
    expected = expected_picture(large, cells, [wall(0, 0, 40), large[:900]])
    assert expected is not None
    assert max(expected.shape) == SIDE_PX
    thin = np.full((2, 300, 3), 90, np.uint8)
    assert expected_picture(thin, cells, [thin]) is None
