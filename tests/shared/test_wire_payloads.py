"""Payloads of samples: compressed arrays, image files, parts of images."""

import struct
import zlib

import cv2
import numpy as np
import pytest
import zstandard
from numpy.typing import NDArray

from shared import wire
from shared.errors import SampleRejected
from shared.images import PNG_MAGIC, encode_jpeg, encode_png
from shared.modalities import base as modalities_base
from shared.modality import Modality
from shared.samples import (
    ImageCrop,
    Region,
    Route,
    Sample,
    Screening,
    new_sample_id,
)
from tests.shared.test_wire import decoded, message
from vedette.v1 import sample_pb2


def test_arrays_are_compressed_where_it_helps() -> None:
    flat, noise = np.zeros((100, 4), np.float32), np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    assert wire.encode_payload(flat, Modality.SERIES).encoding == sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD
    assert len(wire.encode_payload(flat, Modality.SERIES).data) < 100
    assert len(wire.encode_payload(noise, Modality.SERIES).data) <= noise.nbytes
    assert (
        wire.encode_payload(np.zeros(4, np.float32), Modality.TABULAR).encoding == sample_pb2.PAYLOAD_ENCODING_FLOAT32
    )


def test_a_sliced_or_big_endian_array_arrives_in_its_order() -> None:
    values = np.arange(12, dtype=">f4").reshape(3, 4).T
    arrived = wire.decode_payload(wire.encode_payload(values, Modality.SERIES), Modality.SERIES)
    assert np.array_equal(arrived, values)


def test_compressed_payloads_hold_exactly_their_shape() -> None:
    raw = np.arange(100, dtype="<f4").tobytes()
    frame = zstandard.compress(raw)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(raw)
    zstd = sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD
    wire.decode_payload(sample_pb2.Payload(encoding=zstd, data=frame, shape=[100]), Modality.TABULAR)
    for data, size in (
        (frame, 99),
        (frame, 101),
        (frame + b"more", 100),
        (frame[:-3], 100),
        (unsized, 100),
        (b"", 100),
    ):
        with pytest.raises(SampleRejected):
            wire.decode_payload(sample_pb2.Payload(encoding=zstd, data=data, shape=[size]), Modality.TABULAR)


def test_a_small_frame_that_unpacks_to_gigabytes_is_rejected_unread() -> None:
    bomb = zstandard.compress(bytes(2**26 + 4))
    assert len(bomb) < 20_000
    payload = sample_pb2.Payload(encoding=sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD, data=bomb, shape=[2**24 + 1])
    with pytest.raises(SampleRejected, match="more than"):
        wire.decode_payload(payload, Modality.TABULAR)


def test_payloads_over_the_limit_are_rejected_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    payload = wire.encode_payload(noise, Modality.IMAGE)
    monkeypatch.setattr(wire, "MAX_PAYLOAD_BYTES", 10_000)
    monkeypatch.setattr(modalities_base, "MAX_PAYLOAD_BYTES", 10_000)
    with pytest.raises(SampleRejected, match="limit is 10000"):
        wire.encode_payload(noise, Modality.IMAGE)
    with pytest.raises(SampleRejected, match="limit is 10000"):
        wire.decode_payload(payload, Modality.IMAGE)


def test_a_frame_of_twelve_megapixels_travels() -> None:
    frame = np.zeros((3000, 4000, 3), np.uint8)
    assert wire.decode_payload(wire.encode_payload(frame, Modality.IMAGE), Modality.IMAGE).shape == frame.shape


def noise_image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (12, 17, 3)).astype(np.uint8)


def test_the_file_of_an_image_travels_unchanged() -> None:
    file = encode_jpeg(noise_image())
    pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    payload = wire.encode_payload(pixels, Modality.IMAGE, file)

    assert payload.encoding == sample_pb2.PAYLOAD_ENCODING_JPEG
    assert payload.data == file
    assert np.array_equal(wire.decode_payload(payload, Modality.IMAGE), pixels)


def test_a_file_that_the_cloud_would_not_take_travels_as_png() -> None:
    pixels = noise_image()
    bitmap = cv2.imencode(".bmp", pixels)[1].tobytes()
    for file in (bitmap, b"", encode_png(pixels[:5]), PNG_MAGIC + b"cut"):
        payload = wire.encode_payload(pixels, Modality.IMAGE, file)
        assert payload.encoding == sample_pb2.PAYLOAD_ENCODING_PNG
        assert np.array_equal(wire.decode_payload(payload, Modality.IMAGE), pixels)


def test_an_image_that_contradicts_its_payload_is_rejected() -> None:
    good = wire.encode_payload(noise_image(), Modality.IMAGE)
    for encoding, data, shape in (
        (sample_pb2.PAYLOAD_ENCODING_JPEG, good.data, [12, 17, 3]),
        (good.encoding, good.data, [17, 12, 3]),
        (good.encoding, good.data, [12, 17, 1]),
        (good.encoding, good.data, [12, 16, 3]),
        (good.encoding, good.data[:-20], [12, 17, 3]),
        (sample_pb2.PAYLOAD_ENCODING_FLOAT32, bytes(48), [2, 2, 3]),
    ):
        with pytest.raises(SampleRejected):
            wire.decode_payload(sample_pb2.Payload(encoding=encoding, data=data, shape=shape), Modality.IMAGE)


def test_a_png_that_announces_gigapixels_is_rejected_unread() -> None:
    header = struct.pack(">4sIIBBBBB", b"IHDR", 30_000, 30_000, 8, 2, 0, 0, 0)
    file = PNG_MAGIC + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    payload = sample_pb2.Payload(encoding=sample_pb2.PAYLOAD_ENCODING_PNG, data=file, shape=[1, 1, 3])
    with pytest.raises(SampleRejected, match="announce"):
        wire.decode_payload(payload, Modality.IMAGE)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 2), (4, 4, 4), (0, 4, 3), (2, 4, 4, 3)])
def test_pixels_of_another_shape_do_not_leave(shape: tuple[int, ...]) -> None:
    with pytest.raises(SampleRejected, match="pixels of shape"):
        wire.encode_payload(np.zeros(shape, np.uint8), Modality.IMAGE)


def pixels_message(part: ImageCrop | None) -> sample_pb2.Sample:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    sample = Sample(new_sample_id(), "camera", Modality.IMAGE, 1.0, "frame", pixels, crop=part)
    return wire.sample_to_message(sample, Screening(1.0, 0.5, False, Route.FORWARD, "b", "c", "a"))


@pytest.mark.parametrize("region", [None, Region(3, 5, 20, 30)])
def test_a_part_of_an_image_says_where_it_lies(region: Region | None) -> None:
    part = ImageCrop(100, 200, region)
    arrived, _ = decoded(pixels_message(part))
    assert arrived.crop == part
    assert arrived.values.shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("height", "width", "corner", "words"),
    [
        (0, 10, None, "crop of an image of 0"),
        (2**31, 2**31, None, "crop of an image"),
        (40, 40, (30, 0), "outside its image"),
        (40, 40, (0, 4_000_000_000), "outside its image"),
    ],
)
def test_a_part_that_cannot_be_is_rejected(height: int, width: int, corner: tuple[int, int] | None, words: str) -> None:
    sent = pixels_message(None)
    sent.payload.crop.CopyFrom(sample_pb2.ImageCrop(height=height, width=width))
    if corner is not None:
        sent.payload.crop.corner.CopyFrom(sample_pb2.Corner(top=corner[0], left=corner[1]))
    with pytest.raises(SampleRejected, match=words):
        decoded(sent)


def test_a_part_of_what_is_no_image_is_rejected() -> None:
    sent = message()
    sent.payload.crop.CopyFrom(sample_pb2.ImageCrop(height=10, width=10))
    with pytest.raises(SampleRejected, match="no pixels"):
        decoded(sent)
