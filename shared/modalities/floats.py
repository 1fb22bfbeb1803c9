"""Payloads of readings: float32 values, alone or in a zstd frame."""

import math
import threading

import numpy as np
import zstandard
from numpy.typing import NDArray

from shared.errors import SampleRejected
from shared.modalities.base import check_crc, with_crc
from shared.samples import Values
from vedette.v1 import sample_pb2

ZSTD_FROM_BYTES = 256  # below this size the header of a frame costs more than compression saves
FLOAT32_ZSTD = sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD
ENCODINGS = (sample_pb2.PAYLOAD_ENCODING_FLOAT32, FLOAT32_ZSTD)

_thread = threading.local()


def encode_floats(values: Values) -> sample_pb2.Payload:
    """Return little-endian float32 values as a payload, compressed where that makes it smaller."""
    raw = np.asarray(values, dtype="<f4").tobytes()
    if len(raw) >= ZSTD_FROM_BYTES:
        compressed = _compressor().compress(raw)
        if len(compressed) < len(raw):
            return with_crc(sample_pb2.Payload(encoding=FLOAT32_ZSTD, data=compressed, shape=values.shape))
    return sample_pb2.Payload(encoding=sample_pb2.PAYLOAD_ENCODING_FLOAT32, data=raw, shape=values.shape)


def check_floats(payload: sample_pb2.Payload, shape: tuple[int, ...]) -> None:
    """Raise SampleRejected unless the payload announces exactly the float32 values of `shape`."""
    size = math.prod(shape) * 4
    if payload.encoding == sample_pb2.PAYLOAD_ENCODING_FLOAT32:
        if len(payload.data) != size:
            raise SampleRejected(f"payload of {len(payload.data)} bytes; shape {shape} has {size}")
        return
    try:
        announced = zstandard.frame_content_size(payload.data)
    except zstandard.ZstdError as error:
        raise SampleRejected(f"payload is not a zstd frame: {error}") from None
    if announced != size:
        raise SampleRejected(f"compressed payload does not hold the {size} bytes of its shape {shape}")


def decode_floats(payload: sample_pb2.Payload, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the values of a payload that `check_floats` accepts; raises SampleRejected if the frame is damaged."""
    data = payload.data
    if payload.encoding == FLOAT32_ZSTD:
        data = _decompressed(data, shape)
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)


def raw_floats(payload: sample_pb2.Payload, shape: tuple[int, ...]) -> bytes:
    """Return the little-endian float32 values of a payload; raises SampleRejected if it is damaged or has others."""
    check_crc(payload)
    check_floats(payload, shape)
    return _decompressed(payload.data, shape) if payload.encoding == FLOAT32_ZSTD else payload.data


def check_frame(payload: sample_pb2.Payload, shape: tuple[int, ...]) -> None:
    """Raise SampleRejected if a zstd frame that `check_floats` accepts is damaged.

    Its CRC-32 vouches for the frame. Frames without one, of devices of an older version, are decompressed.
    """
    if payload.encoding == FLOAT32_ZSTD and not payload.HasField("crc32"):
        _decompressed(payload.data, shape)


def _decompressed(frame: bytes, shape: tuple[int, ...]) -> bytes:
    size = math.prod(shape) * 4
    try:
        data = _decompressor().decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise SampleRejected(f"payload is not a zstd frame: {error}") from None
    if len(data) != size:
        raise SampleRejected(f"payload unpacks to {len(data)} bytes; shape {shape} has {size}")
    return data


def _decompressor() -> zstandard.ZstdDecompressor:
    """Return this thread's decompressor; see `_compressor`."""
    if not hasattr(_thread, "decompressor"):
        _thread.decompressor = zstandard.ZstdDecompressor()
    decompressor: zstandard.ZstdDecompressor = _thread.decompressor
    return decompressor


def _compressor() -> zstandard.ZstdCompressor:
    """Return this thread's compressor: threads cannot share one, and creating it takes as long as a small sample."""
    if not hasattr(_thread, "compressor"):
        _thread.compressor = zstandard.ZstdCompressor(level=3)
    compressor: zstandard.ZstdCompressor = _thread.compressor
    return compressor
