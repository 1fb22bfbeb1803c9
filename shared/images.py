"""Image files and pixels: (height, width, bands) uint8, 3 bands in RGB order or 1 grey band."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shared.errors import MissingExtraError, SampleRejected

MAX_IMAGE_PIXELS = 2**26
PNG_MAGIC, JPEG_MAGIC = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
# macOS puts a file `._NAME` with attributes beside each file on a foreign disk. It has the suffix of NAME.
ATTRIBUTES_PREFIX = "._"
# JPEG markers (ITU-T T.81, table B.1): frame headers SOF0 to SOF15 without DHT, JPG and DAC, which share their range;
# and markers without a segment.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def opencv() -> Any:
    """Return OpenCV, imported at first use: a device without a camera does not load it.

    Raises MissingExtraError if it is not installed.
    """
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_IMAGE_PIXELS))  # read when OpenCV is imported
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # Vedette reports a damaged file itself, once
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError:
        raise MissingExtraError(
            "Images and videos need OpenCV: pip install 'vedette[edge]' or 'vedette[cloud]'."
        ) from None
    return cv2


@dataclass(frozen=True, slots=True)
class PixelRange:
    """Range of the values of a deep image: 10 to 16 bits, signed or float. `low` becomes 0 and `high` 255.

    It is fixed in the bundle. A range chosen for each image would hide a sample that is hotter than all others.
    """

    low: float
    high: float

    @classmethod
    def of(cls, bounds: tuple[float, float] | None) -> Self | None:
        """Return the range of an `InputSpec`; None for 8-bit images."""
        return None if bounds is None else cls(*bounds)

    def pixels(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Return values of any type as 8-bit pixels of the same shape; values outside the range saturate."""
        scaled = (values.astype(np.float64) - self.low) * (255.0 / (self.high - self.low))
        return np.rint(np.clip(scaled, 0.0, 255.0)).astype(np.uint8)


def is_image_file(name: str) -> bool:
    """Return whether a file is an image by its name."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(ATTRIBUTES_PREFIX)


def image_files(entries: Iterable[Path]) -> tuple[tuple[Path, ...], int]:
    """Return the image files among `entries`, sorted, and the number of other files."""
    images, others = [], 0
    for entry in entries:
        if is_image_file(entry.name):
            images.append(entry)
        elif not entry.is_dir():
            others += 1
    return tuple(sorted(images)), others


def decode_image(data: bytes, *, origin: str = "image", pixel_range: PixelRange | None = None) -> NDArray[np.uint8]:
    """Return the pixels of an image file, (height, width, 3) in RGB or (height, width, 1) for a grey file.

    `pixel_range`: for deep images, the range of values that the bundle was trained on.

    Raises SampleRejected for bytes that are not an image, an image of more than MAX_IMAGE_PIXELS, a deep image without
    a range, and an image of 8 bits with one.
    """
    values = decode_values(data, origin=origin)
    if not is_deep(values):
        if pixel_range is not None:
            raise SampleRejected(
                f"{origin}: has 8-bit pixels, and this bundle was trained on deeper images with values from "
                f"{pixel_range.low:g} to {pixel_range.high:g}."
            )
        return np.asarray(values, dtype=np.uint8)
    if pixel_range is None:
        raise SampleRejected(
            f"{origin}: has pixels of type {values.dtype}, and this bundle was trained on 8-bit images. Train a bundle "
            "on images of this type, or save the image with 8 bits."
        )
    return pixel_range.pixels(values)


def is_deep(values: NDArray[Any]) -> bool:
    """Return whether the values of an image need a `PixelRange`."""
    return values.dtype != np.uint8


def decode_values(data: bytes, *, origin: str = "image") -> NDArray[Any]:
    """Return the values of an image file in their own type, shaped as by `decode_image`.

    Raises SampleRejected for bytes that are not an image, an image of more than MAX_IMAGE_PIXELS, and values that are
    not finite.
    """
    size = announced_size(data)
    if size is not None and size[0] * size[1] > MAX_IMAGE_PIXELS:
        raise SampleRejected(f"{origin}: {size[0]} x {size[1]} pixels, and the limit is {MAX_IMAGE_PIXELS}.")
    cv2 = opencv()
    try:
        flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, ValueError) as error:
        raise SampleRejected(f"{origin}: not a readable image ({getattr(error, 'err', error)}).") from None
    if pixels is None or pixels.size == 0:
        raise SampleRejected(f"{origin}: not a readable image.")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise SampleRejected(f"{origin}: has pixels that are not finite numbers.")
    if pixels.ndim == 2:
        return np.ascontiguousarray(pixels[..., np.newaxis])
    return np.ascontiguousarray(pixels[..., ::-1])


def announced_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width from the header of a PNG or JPEG file; None if there is no such header.

    A file of some kilobytes can announce gigabytes of pixels: check it before decoding a received file.
    """
    if data.startswith(PNG_MAGIC):
        # The first chunk is IHDR: length (4 bytes), type (4), width (4), height (4).
        width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
        return (height, width) if data[12:16] == b"IHDR" and len(data) >= 24 else None
    if data.startswith(JPEG_MAGIC):
        return _jpeg_size(data)
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _JPEG_FRAMES:
            # Length (2 bytes), sample precision (1), height (2), width (2).
            height, width = data[position + 5 : position + 7], data[position + 7 : position + 9]
            return int.from_bytes(height, "big"), int.from_bytes(width, "big")
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in _JPEG_ALONE:
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels (height, width) or (height, width, 1 or 3) as a lossless PNG file.

    Raises SampleRejected for other shapes.
    """
    return _encode(pixels, ".png", [])


def encode_jpeg(pixels: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Return pixels, shaped as for `encode_png`, as a JPEG file; `quality` is 1 to 100."""
    return _encode(pixels, ".jpg", [opencv().IMWRITE_JPEG_QUALITY, quality])


def resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return RGB pixels (height, width, 3), area-averaged when they shrink; a grey band is repeated."""
    cv2 = opencv()
    if pixels.shape[:2] != (height, width):
        shrinks = pixels.shape[0] > height or pixels.shape[1] > width
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        pixels = cv2.resize(pixels, (width, height), interpolation=method)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = np.repeat(pixels.reshape(height, width, 1), 3, axis=2)
    return pixels


def _encode(pixels: NDArray[np.uint8], suffix: str, options: list[int]) -> bytes:
    bands = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.size == 0 or pixels.ndim not in (2, 3) or bands not in (1, 3):
        raise SampleRejected(f"pixels of shape {pixels.shape} and type {pixels.dtype} are not a grey or RGB image")
    cv2 = opencv()
    try:
        done, data = cv2.imencode(suffix, np.ascontiguousarray(pixels[..., ::-1] if bands == 3 else pixels), options)
    except cv2.error:
        done, data = False, None
    if not done:
        raise SampleRejected(f"an image of shape {pixels.shape} cannot be written as {suffix}")
    return bytes(data.tobytes())
