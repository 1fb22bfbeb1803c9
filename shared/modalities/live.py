"""Payloads of live views: small pictures and readings for people, which are neither stored nor judged."""

import math

import numpy as np
from numpy.typing import NDArray

from shared.errors import SampleRejected
from shared.images import MAX_IMAGE_PIXELS, encode_jpeg, resize
from shared.modalities.base import check_crc, with_crc
from shared.modalities.floats import encode_floats
from shared.modalities.pixels import check_image_file
from shared.samples import Values
from vedette.v1 import sample_pb2

MAX_LIVE_BYTES = 64 * 1024  # of the data of a payload
MAX_LIVE_VALUES = MAX_LIVE_BYTES // 4
MAX_SIDE_PIXELS = 640
_JPEG = sample_pb2.PAYLOAD_ENCODING_JPEG
_QUALITIES = (80, 60, 40)
_SHRINK = 0.7


def picture_payload(pixels: NDArray[np.uint8]) -> sample_pb2.Payload:
    """Return a preview of an image (height, width, 1 or 3) as JPEG; grainy pictures get smaller, not larger files.

    Raises SampleRejected if the pixels are not an image.
    """
    if pixels.ndim != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise SampleRejected(f"pixels of shape {pixels.shape} are not (height, width, bands)")
    height, width = pixels.shape[:2]
    scale = min(1.0, MAX_SIDE_PIXELS / max(height, width))
    while True:
        small = resize(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
        for quality in _QUALITIES:
            data = encode_jpeg(small, quality)
            if len(data) <= MAX_LIVE_BYTES:
                crop = sample_pb2.ImageCrop(height=height, width=width)
                return with_crc(sample_pb2.Payload(encoding=_JPEG, data=data, shape=small.shape, crop=crop))
        scale *= _SHRINK


def check_picture(payload: sample_pb2.Payload) -> tuple[int, ...]:
    """Return the shape (height, width, 3) of a preview, at most MAX_SIDE_PIXELS on each side.

    Raises SampleRejected for any other payload, and for a file whose header or structure does not fit.
    """
    shape = tuple(payload.shape)
    if payload.encoding != _JPEG or len(shape) != 3 or shape[2] != 3 or not 0 < max(shape[:2]) <= MAX_SIDE_PIXELS:
        raise SampleRejected(f"payload of encoding {payload.encoding} and shape {shape[:4]} is no preview")
    if not payload.HasField("crop") or not 0 < payload.crop.height * payload.crop.width <= MAX_IMAGE_PIXELS:
        raise SampleRejected("preview without the size of its image")
    check_image_file(_checked_data(payload), _JPEG, shape)
    return shape


def readings_payload(values: Values) -> tuple[sample_pb2.Payload, int]:
    """Return readings (features,) or (length, channels) as a payload, and n: it has every n-th time point.

    The last time point stays. Raises SampleRejected if one time point has more than MAX_LIVE_VALUES readings.
    """
    every = max(1, math.ceil(values.size / MAX_LIVE_VALUES))
    if values.ndim == 1 and every > 1:
        raise SampleRejected(f"a row of {values.size} values is too large to be shown")
    shown = values if every == 1 else values[(len(values) - 1) % every :: every]
    while shown.size > MAX_LIVE_VALUES:  # the division left a remainder
        every += 1
        if every > len(values):
            raise SampleRejected(f"{values.shape[1]} channels are too many to be shown")
        shown = values[(len(values) - 1) % every :: every]
    return encode_floats(shown), every


def check_live_size(payload: sample_pb2.Payload) -> None:
    """Raise SampleRejected for readings beyond the bounds of a live view, before anything is decompressed."""
    if len(payload.shape) > 2 or not 0 < math.prod(payload.shape) <= MAX_LIVE_VALUES:
        raise SampleRejected(f"shape {tuple(payload.shape)[:4]} is empty or has more than {MAX_LIVE_VALUES} values")
    if payload.HasField("crop"):
        raise SampleRejected("crop of an image in a payload that holds no pixels")
    _checked_data(payload)


def _checked_data(payload: sample_pb2.Payload) -> bytes:
    data = payload.data
    if len(data) > MAX_LIVE_BYTES:
        raise SampleRejected(f"payload of {len(data)} bytes; a live view has at most {MAX_LIVE_BYTES}")
    check_crc(payload, data)
    return data
