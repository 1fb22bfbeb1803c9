"""Every modality keeps the contract of `SampleType`, and naming one loads nothing heavy."""

import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.bundle import InputSpec
from shared.errors import SampleRejected
from shared.images import encode_jpeg
from shared.modalities import sample_type
from shared.modalities.base import FormSettings, PayloadForm, Reduced
from shared.modality import Modality
from shared.wire import check_payload, decode_crop, decode_payload, encode_payload
from vedette.v1 import sample_pb2

SPEC = InputSpec(channels=("a", "b"), window_length=4, image_height=64, image_width=96)


def sample(modality: Modality) -> NDArray[Any]:
    """A sample of the modality with smooth pixels, which JPEG keeps well."""
    if not sample_type(modality).has_vectors:
        ramp = np.linspace(0, 200, 64)[:, None, None] + np.linspace(0, 50, 96)[None, :, None] + np.zeros(3)
        frame = ramp.astype(np.uint8)
        return frame if modality is Modality.IMAGE else np.stack([frame, frame + 2, frame + 4, frame + 5])
    shape = (2,) if modality is Modality.TABULAR else (40, 2)
    return np.random.default_rng(0).normal(size=shape).round(1).astype(np.float32)


def forms(modality: Modality) -> list[tuple[PayloadForm, sample_pb2.Payload]]:
    """Return the payload of the sample in each form of its modality."""
    kind, hot = sample_type(modality), np.zeros((8, 12), np.uint8)
    hot[1, 1] = 255
    payloads = []
    for form in kind.forms:
        reduced = kind.reduce(form, Reduced(sample(modality)), hot, SPEC, FormSettings())
        payload = encode_payload(reduced.values, modality, reduced.encoded)
        payloads.append((form, payload))
    return payloads


def test_naming_modalities_loads_no_numpy() -> None:
    code = "import sys, shared.modalities, shared.modality; print('numpy' in sys.modules, 'cv2' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("modality", list(Modality))
def test_a_sample_survives_without_loss(modality: Modality) -> None:
    values = sample(modality)
    payload = encode_payload(values, modality)
    assert np.array_equal(decode_payload(payload, modality), values)
    assert decode_crop(payload) is None
    assert sample_type(modality).rank == values.ndim


@pytest.mark.parametrize("modality", list(Modality))
def test_forms_are_accepted_decoded_and_get_smaller(modality: Modality) -> None:
    sizes = []
    for form, payload in forms(modality):
        check_payload(payload, modality)
        decoded = decode_payload(payload, modality)
        assert decoded.shape == tuple(payload.shape), form
        if form is not PayloadForm.FEATURES and decoded.shape == sample(modality).shape:
            assert np.abs(decoded.astype(float) - sample(modality)).max() <= 16, form
        sizes.append(len(payload.data))
    assert len(sizes) == len(sample_type(modality).forms)
    assert sizes[-1] == min(sizes)


@pytest.mark.parametrize("modality", list(Modality))
def test_damage_is_found_without_decoding(modality: Modality) -> None:
    for form, whole in forms(modality):
        damaged = []
        for data in (whole.data[:-1], whole.data[: len(whole.data) // 2], b"", whole.data[: len(whole.data) - 12]):
            damaged.append(sample_pb2.Payload(encoding=whole.encoding, data=data, shape=whole.shape))
        for change in (1, -1):
            shape = [whole.shape[0] + change, *whole.shape[1:]]
            damaged.append(sample_pb2.Payload(encoding=whole.encoding, data=whole.data, shape=shape))
        for payload in damaged:
            if payload.encoding == sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD and payload.shape == whole.shape:
                continue  # a frame's header is whole; its contents are checked when it is decompressed
            with pytest.raises(SampleRejected):
                check_payload(payload, modality)
        assert form in sample_type(modality).forms


@pytest.mark.parametrize("modality", [Modality.IMAGE, Modality.VIDEO])
def test_one_flipped_bit_of_a_picture_is_found_without_decoding(modality: Modality) -> None:
    for form, payload in forms(modality):
        for position in np.linspace(30, len(payload.data) - 1, 23).astype(int).tolist():
            data = bytearray(payload.data)
            data[position] ^= 4
            changed = sample_pb2.Payload()
            changed.CopyFrom(payload)
            changed.data = bytes(data)
            with pytest.raises(SampleRejected):
                check_payload(changed, modality)
        assert form in sample_type(modality).forms


def test_a_checksum_of_other_data_is_refused() -> None:
    payload = encode_payload(sample(Modality.IMAGE), Modality.IMAGE, encode_jpeg(sample(Modality.IMAGE)))
    assert payload.crc32 == zlib.crc32(payload.data)
    payload.crc32 ^= 1
    with pytest.raises(SampleRejected, match="CRC"):
        check_payload(payload, Modality.IMAGE)
    payload.ClearField("crc32")  # devices of an older version send none
    check_payload(payload, Modality.IMAGE)


def test_a_jpeg_file_that_breaks_off_leaves_the_device_as_png() -> None:
    pixels = sample(Modality.IMAGE)
    file = encode_jpeg(pixels)
    payload = encode_payload(pixels, Modality.IMAGE, file[:-40])
    assert payload.encoding == sample_pb2.PAYLOAD_ENCODING_PNG
    check_payload(payload, Modality.IMAGE)


def test_bytes_after_the_end_of_a_jpeg_file_do_no_harm() -> None:
    pixels = sample(Modality.IMAGE)
    payload = encode_payload(pixels, Modality.IMAGE, encode_jpeg(pixels) + b"maker note")
    assert payload.encoding == sample_pb2.PAYLOAD_ENCODING_JPEG
    check_payload(payload, Modality.IMAGE)
    assert decode_payload(payload, Modality.IMAGE).shape == pixels.shape


def test_a_clip_of_more_frames_than_its_payload_says_is_refused() -> None:
    clip = sample(Modality.VIDEO)
    payload = encode_payload(clip, Modality.VIDEO)
    short = sample_pb2.Payload(encoding=payload.encoding, data=payload.data, shape=[3, *payload.shape[1:]])
    with pytest.raises(SampleRejected, match="exactly 3 frames"):
        check_payload(short, Modality.VIDEO)
