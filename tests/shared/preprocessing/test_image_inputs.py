"""Images become inputs of one size."""

import numpy as np
import pytest

from shared.bundle import InputSpec
from shared.errors import DataError
from shared.preprocessing import ImagePreprocessor

SPEC = InputSpec(image_height=32, image_width=48)


def test_images_of_any_size_and_bands_are_resized_to_colour() -> None:
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, shape, dtype=np.uint8) for shape in ((64, 64, 3), (32, 48, 1), (9, 200, 3))]
    prepared = ImagePreprocessor(SPEC).prepare(images)
    assert prepared.inputs.shape == (3, 32, 48, 3)
    assert prepared.inputs.dtype == np.uint8
    np.testing.assert_array_equal(prepared.inputs[1], np.repeat(images[1], 3, axis=2))


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((20, 20, 3), dtype=np.float32), "8-bit"),
        (np.zeros((20, 20), dtype=np.uint8), "shape"),
        (np.zeros((20, 20, 4), dtype=np.uint8), "shape"),
        (np.zeros((3, 20, 3), dtype=np.uint8), "minimum is 8"),
    ],
)
def test_an_unusable_image_is_rejected_alone(pixels: np.ndarray, reason: str) -> None:
    good = np.full((20, 20, 3), 9, dtype=np.uint8)
    prepared = ImagePreprocessor(SPEC).prepare([good, pixels, good])
    assert prepared.kept.tolist() == [0, 2]
    assert prepared.inputs.shape == (2, 32, 48, 3)
    assert reason in prepared.rejections[0][1]


def test_a_graph_without_a_size_is_refused() -> None:
    with pytest.raises(DataError, match="too small"):
        ImagePreprocessor(InputSpec())
