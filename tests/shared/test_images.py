"""Encoding and decoding of images."""

import contextlib
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from shared.errors import SampleRejected
from shared.images import PNG_MAGIC, PixelRange, announced_size, decode_image, encode_jpeg, encode_png, resize

pictures = arrays(np.uint8, st.tuples(st.integers(1, 16), st.integers(1, 16), st.sampled_from([1, 3])))


def smooth() -> NDArray[np.uint8]:
    """Red grows to the right, green downwards, blue is constant, so a swap of axes or bands changes the result."""
    rows, columns = np.mgrid[0:24, 0:40]
    return np.stack([columns * 6, rows * 10, np.full_like(rows, 30)], axis=2).astype(np.uint8)


@given(pictures)
def test_png_is_lossless(pixels: NDArray[np.uint8]) -> None:
    assert np.array_equal(decode_image(encode_png(pixels)), pixels)


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_a_grey_picture_without_bands_keeps_its_columns_in_order(pixels: NDArray[np.uint8]) -> None:
    assert np.array_equal(decode_image(encode_png(pixels))[..., 0], pixels)


def test_jpeg_keeps_bands_and_sides() -> None:
    assert np.abs(decode_image(encode_jpeg(smooth(), 95)).astype(int) - smooth()).max() < 12


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp"])
def test_every_file_kind_is_read_as_rgb(suffix: str) -> None:
    file = cv2.imencode(suffix, np.ascontiguousarray(smooth()[..., ::-1]))[1].tobytes()
    assert np.abs(decode_image(file).astype(int) - smooth()).mean() < 6


def test_deep_transparent_and_grey_files_become_eight_bits() -> None:
    deep = cv2.imencode(".png", smooth().astype(np.uint16) * 257)[1].tobytes()
    assert np.array_equal(decode_image(deep, pixel_range=PixelRange(0, 65535)), smooth()[..., ::-1])
    transparent = cv2.imencode(".png", np.dstack([smooth(), np.full((24, 40), 7, np.uint8)]))[1].tobytes()
    assert decode_image(transparent).shape == (24, 40, 3)
    assert decode_image(cv2.imencode(".png", smooth()[..., 0])[1].tobytes()).shape == (24, 40, 1)


@pytest.mark.parametrize("encode", [encode_png, encode_jpeg])
def test_a_cut_file_is_rejected_wherever_it_is_cut(encode: object) -> None:
    file = encode_png(smooth()) if encode is encode_png else encode_jpeg(smooth())
    for size in range(0, len(file) - 4, 7):
        with pytest.raises(SampleRejected, match=r"frame\.png: not a readable image"):
            decode_image(file[:size], origin="frame.png")


@given(st.sampled_from([b"", PNG_MAGIC, b"\xff\xd8\xff\xe0", b"BM", b"RIFF", b"II*\0"]), st.binary(max_size=200))
def test_garbage_is_only_ever_rejected(magic: bytes, data: bytes) -> None:
    with contextlib.suppress(SampleRejected):
        assert decode_image(magic + data).ndim == 3


def announcing_png(width: int, height: int) -> bytes:
    """A well-formed PNG file of one empty data chunk."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG_MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_picture_of_too_many_pixels_is_rejected_before_it_is_decoded() -> None:
    with pytest.raises(SampleRejected, match="20000 x 10000 pixels"):
        decode_image(announcing_png(10_000, 20_000))
    jpeg = bytearray(encode_jpeg(smooth()))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(SampleRejected, match="60000 x 60000 pixels"):
        decode_image(bytes(jpeg))


@given(pictures)
def test_headers_announce_the_size(pixels: NDArray[np.uint8]) -> None:
    assert announced_size(encode_png(pixels)) == pixels.shape[:2]
    assert announced_size(encode_jpeg(pixels)) == pixels.shape[:2]


def test_a_progressive_jpeg_with_fill_bytes_announces_its_size() -> None:
    file = cv2.imencode(".jpg", smooth(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    frame = file.index(b"\xff\xc2")
    assert announced_size(file[:frame] + b"\xff\xff" + file[frame:]) == (24, 40)


@pytest.mark.parametrize(
    "file", [b"", b"GIF89a", PNG_MAGIC, b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\x00\x00", PNG_MAGIC + bytes(40)]
)
def test_other_headers_announce_nothing(file: bytes) -> None:
    assert announced_size(file) is None


def test_resize_averages_and_repeats_a_grey_band() -> None:
    stripes = np.tile(np.array([[[0], [200]]], np.uint8), (8, 8, 1))
    small = resize(stripes, 4, 4)
    assert small.shape == (4, 4, 3)
    assert np.abs(small.astype(int) - 100).max() <= 1
    assert resize(smooth(), 24, 40) is not None
    assert np.array_equal(resize(smooth(), 24, 40), smooth())
    assert resize(smooth(), 224, 224).shape == (224, 224, 3)


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4)), np.zeros((0, 4, 3), np.uint8), np.zeros(4, np.uint8)]
)
def test_what_is_no_picture_is_not_written(pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(SampleRejected, match="not a grey or RGB image"):
        encode_png(pixels)
    with pytest.raises(SampleRejected, match="not a grey or RGB image"):
        encode_jpeg(pixels)


def test_a_picture_too_wide_for_jpeg_is_told() -> None:
    with pytest.raises(SampleRejected, match=r"cannot be written as \.jpg"):
        encode_jpeg(np.zeros((1, 70_000, 3), np.uint8))


def test_opencv_is_loaded_only_for_pictures(tmp_path: Path) -> None:
    code = "import sys, shared.wire; assert 'cv2' not in sys.modules; shared.images.encode_png; sys.exit(0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
