"""Images of more than 8 bits: one range from training to device, cloud and evaluation."""

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cloud.api.inputs import image_input
from cloud.training.samples.images import depth_note, learn_pixel_range, read_image, read_mask
from edge.settings.sources import ImageFolderSettings
from edge.sources import open_source
from shared.bundle import InputSpec
from shared.errors import DataError, SampleRejected
from shared.images import PixelRange, decode_image, encode_png
from shared.modality import Modality
from shared.wire import decode_payload, encode_payload
from tests.cases import case


def scene(low: float, high: float, dtype: type[np.generic], seed: int = 0) -> NDArray[np.generic]:
    """Return a smooth image (64, 64) with values from `low` to `high`."""
    rows, columns = np.mgrid[0:64, 0:64] / 63
    noise = np.random.default_rng(seed).normal(0, 0.01, rows.shape)
    values = low + (high - low) * np.clip((rows + columns) / 2 + noise, 0, 1)
    return values.astype(dtype)


def write(path: Path, values: NDArray[np.generic]) -> Path:
    assert cv2.imwrite(str(path), values)
    return path


DEPTHS = [
    pytest.param(0, 1023, np.uint16, ".png", id="10 bits"),
    pytest.param(200, 3900, np.uint16, ".png", id="12 bits"),
    pytest.param(0, 65535, np.uint16, ".tiff", id="16 bits"),
    pytest.param(-400, 900, np.int16, ".tiff", id="signed thermal"),
    pytest.param(-1.5, 4.0, np.float32, ".tiff", id="float"),
]


@pytest.mark.parametrize(("low", "high", "dtype", "suffix"), DEPTHS)
def test_deep_images_use_the_range_of_the_normals(
    tmp_path: Path, low: float, high: float, dtype: type[np.generic], suffix: str
) -> None:
    paths = [write(tmp_path / f"{seed}{suffix}", scene(low, high, dtype, seed)) for seed in range(5)]
    found = learn_pixel_range(paths)
    assert found is not None
    pixels = read_image(paths[0], found)
    assert pixels.shape == (64, 64, 1)
    assert len(np.unique(pixels)) > 140  # of about 170, since a third of the range is kept for anomalies
    hot = write(tmp_path / f"hot{suffix}", scene(low, high + 0.1 * (high - low), dtype))
    if high < np.iinfo(np.uint16).max:
        assert read_image(hot, found).max() > pixels.max()


def test_eight_bits_have_no_range_and_mixed_folders_are_refused(tmp_path: Path) -> None:
    eight = write(tmp_path / "a.png", scene(0, 255, np.uint8))
    deep = write(tmp_path / "b.png", scene(0, 4000, np.uint16))
    flat = write(tmp_path / "c.png", np.full((64, 64), 300, np.uint16))
    assert learn_pixel_range([eight]) is None
    with pytest.raises(DataError, match=r"a\.png: has 8-bit pixels, and b\.png is deeper"):
        learn_pixel_range([eight, deep])
    with pytest.raises(DataError, match="every pixel is 300"):
        learn_pixel_range([flat])
    with pytest.raises(SampleRejected, match="was trained on 8-bit images"):
        read_image(deep)
    with pytest.raises(SampleRejected, match="was trained on deeper images"):
        read_image(eight, PixelRange(0, 4000))
    assert read_mask(deep).shape == (64, 64)


def test_a_float_image_with_holes_is_rejected(tmp_path: Path) -> None:
    values = scene(0, 1, np.float32)
    values[3, 3] = np.nan
    with pytest.raises(SampleRejected, match="not finite"):
        read_image(write(tmp_path / "a.tiff", values), PixelRange(0, 1))


def test_device_cloud_and_evaluation_see_the_same_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", scene(200, 3900, np.uint16))
    spec = InputSpec(image_height=64, image_width=64, pixel_range=(0.0, 4500.0))
    settings = ImageFolderSettings(id="camera", kind="images", path=tmp_path, bundle=Path("b"))
    source = open_source(settings, Modality.IMAGE, spec, threading.Event())
    batch = next(iter(source.batches()))
    assert batch.encoded is None  # the cloud decodes a file without the range
    sent = decode_payload(encode_payload(batch.values[0], Modality.IMAGE), Modality.IMAGE)
    np.testing.assert_array_equal(sent, batch.values[0])
    np.testing.assert_array_equal(sent, read_image(path, PixelRange(0.0, 4500.0)))
    scored = next(image_input([path], spec).blocks)[0].values
    np.testing.assert_array_equal(sent, scored)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.floats(-1e9, 1e9))
def test_values_are_mapped_in_order_and_saturate(low: float, span: float, value: float) -> None:
    found = PixelRange(low, low + span).pixels(np.array([low, value, low + span]))
    assert found[0] == 0
    assert found[2] >= 254  # low + span was rounded
    assert found[1] == 0 or value > low
    assert found[1] >= 254 or value < low + span


def test_the_range_is_in_the_manifest_only_where_there_is_one() -> None:
    assert "pixel_range" not in InputSpec().model_dump()
    spec = InputSpec(pixel_range=(-4.0, 8.0))
    assert InputSpec.model_validate_json(spec.model_dump_json()) == spec
    with pytest.raises(ValueError, match="does not rise"):
        InputSpec(pixel_range=(8.0, 8.0))


def test_the_twelve_bits_of_a_case_are_kept() -> None:
    paths = sorted(case("07-sixteen-bit").glob("*.png"))
    found = learn_pixel_range([path for path in paths if not path.name.startswith("test")])
    assert found is not None
    assert all(len(np.unique(read_image(path, found))) > 40 for path in paths)
    low, high = f"{found.low:,.0f}", f"{found.high:,.0f}"
    assert depth_note(paths, found) == f"images: 16 bits, values {low} to {high} are mapped to 0 to 255"
    assert depth_note(paths, PixelRange(100, 4012)).endswith("values 100 to 4,012 are mapped to 0 to 255")
    with pytest.raises(SampleRejected, match="uint16"):
        decode_image(paths[0].read_bytes())
    assert decode_image(encode_png(read_image(paths[0], found))).dtype == np.uint8
