"""Payloads of images: PNG and JPEG files, checked without decoding their pixels."""

import re
import zlib

import numpy as np
from numpy.typing import NDArray

from shared.errors import SampleRejected
from shared.images import JPEG_MAGIC, PNG_MAGIC, announced_size, decode_image
from shared.preprocessing.image import MIN_SIDE_PIXELS
from vedette.v1 import sample_pb2

IMAGE_MAGIC: dict[int, bytes] = {
    sample_pb2.PAYLOAD_ENCODING_PNG: PNG_MAGIC,
    sample_pb2.PAYLOAD_ENCODING_JPEG: JPEG_MAGIC,
}
# PNG colour types (ISO/IEC 15948, table 11.1) whose number of decoded bands is certain.
_PNG_BANDS = {0: 1, 2: 3, 6: 3}
# A marker in JPEG's entropy-coded data: not a stuffed byte, a restart marker or a fill byte (ITU-T T.81, B.1.1).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a segment


def image_encoding(data: bytes) -> sample_pb2.PayloadEncoding | None:
    """Return the payload encoding of an image file by its first bytes; None for other formats."""
    if data.startswith(PNG_MAGIC):
        return sample_pb2.PAYLOAD_ENCODING_PNG
    return sample_pb2.PAYLOAD_ENCODING_JPEG if data.startswith(JPEG_MAGIC) else None


def check_pixels_shape(shape: tuple[int, ...]) -> None:
    """Raise SampleRejected unless the shape is (height, width, 1 or 3) with sides of MIN_SIDE_PIXELS or more."""
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise SampleRejected(f"has shape {shape}; expected (height, width, 1 or 3)")
    if min(shape[:2]) < MIN_SIDE_PIXELS:
        raise SampleRejected(f"has {shape[0]} x {shape[1]} pixels; each side has at least {MIN_SIDE_PIXELS}")


def check_image_file(data: bytes, encoding: int, shape: tuple[int, ...]) -> None:
    """Raise SampleRejected unless `data` is a complete file of `encoding` whose header announces `shape`.

    `shape`: (height, width, bands). A PNG file's chunks are checked by their CRC, a JPEG file's segments up to its
    end-of-image marker. Height and width may be swapped: a file may ask to be rotated.
    """
    if not data.startswith(IMAGE_MAGIC[encoding]):
        raise SampleRejected("payload is not an image of the encoding it names")
    size = announced_size(data)
    if size is None or size not in (shape[:2], shape[1::-1]):
        raise SampleRejected(f"image header does not announce the shape {shape} of its payload")
    if encoding == sample_pb2.PAYLOAD_ENCODING_PNG:
        _check_png(data, shape[2])
    else:
        _check_jpeg(data)


def decode_image_file(data: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the pixels of a file that `check_image_file` accepts; raises SampleRejected if it is damaged."""
    pixels = decode_image(data)
    if pixels.shape != shape:
        raise SampleRejected(f"image of shape {pixels.shape}; its payload says {shape}")
    return pixels


def _check_png(data: bytes, bands: int) -> None:
    """Walk the chunks: length (4 bytes), type (4), data, CRC-32 of type and data (4)."""
    if _PNG_BANDS.get(data[25], bands) != bands:  # colour type, in IHDR
        raise SampleRejected(f"PNG file of colour type {data[25]} does not have {bands} bands")
    position, has_pixels = len(PNG_MAGIC), False
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 8 + length
        kind = data[position + 4 : position + 8]
        if end + 4 > len(data):
            break
        if zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise SampleRejected(f"PNG file is damaged: the CRC of chunk {kind!r} does not match")
        if kind == b"IEND":
            if not has_pixels:
                raise SampleRejected("PNG file holds no pixels")
            return
        has_pixels = has_pixels or kind == b"IDAT"
        position = end + 4
    raise SampleRejected("PNG file breaks off before its end")


def _check_jpeg(data: bytes) -> None:
    """Walk the segments, and the entropy-coded data between them, to the end-of-image marker."""
    position, has_pixels = 2, False
    while position + 2 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _JPEG_END:
            if not has_pixels:
                raise SampleRejected("JPEG file holds no pixels")
            return
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in _JPEG_ALONE:
            position += 2
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _JPEG_SCAN:
            has_pixels = True
            found = _JPEG_MARKER.search(data, position)
            if found is None:
                break
            position = found.start()
    raise SampleRejected("JPEG file breaks off before its end")
