"""Clips as a list of image files: for each frame a little-endian uint32 with the length of its file, then the file.

Every frame stands alone, so one that is damaged can be named, and any tool that reads PNG or JPEG reads the clip.
"""

import struct
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from shared.errors import SampleRejected
from shared.modalities.pixels import check_image_file, decode_image_file
from vedette.v1 import sample_pb2

FILE_ENCODINGS: dict[int, int] = {
    sample_pb2.PAYLOAD_ENCODING_PNG_FRAMES: sample_pb2.PAYLOAD_ENCODING_PNG,
    sample_pb2.PAYLOAD_ENCODING_JPEG_FRAMES: sample_pb2.PAYLOAD_ENCODING_JPEG,
}
_LENGTH = struct.Struct("<I")


def pack_frames(clip: NDArray[np.uint8], encode: Callable[[NDArray[np.uint8]], bytes]) -> bytes:
    """Return the frames (frames, height, width, bands) as a list of files, each written by `encode`."""
    files = [encode(np.ascontiguousarray(frame)) for frame in clip]
    return b"".join(part for file in files for part in (_LENGTH.pack(len(file)), file))


def split_frames(data: bytes, count: int) -> list[bytes]:
    """Return the `count` files of a list; raises SampleRejected if it does not hold exactly these."""
    files: list[bytes] = []
    position = 0
    while position + _LENGTH.size <= len(data) and len(files) < count:
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size + length
        if position > len(data):
            break
        files.append(data[position - length : position])
    if len(files) != count or position != len(data):
        raise SampleRejected(f"clip of {len(data)} bytes does not hold exactly {count} frames")
    return files


def check_frames(data: bytes, encoding: int, shape: tuple[int, ...]) -> None:
    """Raise SampleRejected unless `data` lists complete files of a clip (frames, height, width, bands)."""
    for number, file in enumerate(split_frames(data, shape[0])):
        try:
            check_image_file(file, FILE_ENCODINGS[encoding], shape[1:])
        except SampleRejected as error:
            raise SampleRejected(f"frame {number} of the clip: {error}") from None


def decode_frames(data: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the pixels of a list that `check_frames` accepts."""
    frames: Sequence[NDArray[np.uint8]] = [decode_image_file(file, shape[1:]) for file in split_frames(data, shape[0])]
    return np.stack(frames)
