"""Every modality keeps the contract of `SampleType`, and naming one loads nothing heavy."""

import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.bundle import InputSpec
from shared.errors import SampleRejected
from shared.images import encode_jpeg
from shared.modalities import sample_type, video
from shared.modalities.base import FormSettings, PayloadForm, Reduced
from shared.modalities.h264 import check_h264, encode_h264
from shared.modality import Modality
from shared.wire import check_payload, decode_crop, decode_payload, encode_payload
from vedette.v1 import sample_pb2

SPEC = InputSpec(channels=("a", "b"), window_length=4, image_height=64, image_width=96)


def sample(modality: Modality) -> NDArray[Any]:
    """Return a sample of the modality; pictures are smooth with a little grain."""
    if not sample_type(modality).has_vectors:
        ramp = np.linspace(0, 200, 64)[:, None, None] + np.linspace(0, 50, 96)[None, :, None] + np.zeros(3)
        grain = np.random.default_rng(0).normal(0, 3, (4, 64, 96, 1))
        clip = np.clip(ramp + grain, 0, 255).astype(np.uint8)
        return clip[0] if modality is Modality.IMAGE else clip
    shape = (2,) if modality is Modality.TABULAR else (40, 2)
    return np.random.default_rng(0).normal(size=shape).round(1).astype(np.float32)


STREAM = encode_h264(sample(Modality.VIDEO))


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
    assert max(sizes[1:], default=0) < sizes[0]
    assert sizes[-1] <= 1000 or len(sizes) == 1


@pytest.mark.parametrize("modality", list(Modality))
def test_damage_is_found_without_decoding(modality: Modality) -> None:
    for form, whole in forms(modality):
        damaged = []
        for data in (whole.data[:-1], whole.data[: len(whole.data) // 2], b"", whole.data[: len(whole.data) - 12]):
            cut = sample_pb2.Payload()
            cut.CopyFrom(whole)
            cut.data = data
            damaged.append(cut)
        for change in (1, -1):
            shape = [whole.shape[0] + change, *whole.shape[1:]]
            damaged.append(sample_pb2.Payload(encoding=whole.encoding, data=whole.data, shape=shape))
        for payload in damaged:
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


def test_every_flipped_bit_of_compressed_readings_is_found_by_the_checksum() -> None:
    whole = encode_payload(sample(Modality.SERIES), Modality.SERIES)
    assert whole.encoding == sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD
    assert whole.crc32 == zlib.crc32(whole.data)
    for position in range(len(whole.data)):
        data = bytearray(whole.data)
        data[position] ^= 4
        changed = sample_pb2.Payload()
        changed.CopyFrom(whole)
        changed.data = bytes(data)
        with pytest.raises(SampleRejected):
            check_payload(changed, Modality.SERIES)


def test_compressed_readings_without_checksum_are_decompressed_to_be_checked() -> None:
    whole = encode_payload(sample(Modality.SERIES), Modality.SERIES)
    whole.ClearField("crc32")  # devices of an older version send none
    check_payload(whole, Modality.SERIES)
    for data in (whole.data[:-1], whole.data[:-8], whole.data + b"more"):
        broken = sample_pb2.Payload(encoding=whole.encoding, data=data, shape=whole.shape)
        with pytest.raises(SampleRejected, match="zstd"):
            check_payload(broken, Modality.SERIES)


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


def test_the_rate_of_h264_follows_the_bytes_granted() -> None:
    clip, kind = np.random.default_rng(1).integers(0, 256, (4, 64, 96, 3)).astype(np.uint8), sample_type(Modality.VIDEO)
    sizes = [len(encode_h264(clip))]
    for max_bytes in (sizes[0] // 2, sizes[0] // 8):
        granted = FormSettings(max_bytes=max_bytes)
        reduced = kind.reduce(PayloadForm.H264, Reduced(clip), None, SPEC, granted)
        payload = encode_payload(clip, Modality.VIDEO, reduced.encoded)
        assert payload.encoding == sample_pb2.PAYLOAD_ENCODING_H264
        assert np.abs(decode_payload(payload, Modality.VIDEO).astype(int) - clip).mean() < 80
        sizes.append(len(payload.data))
    assert sizes[1] <= sizes[0] // 2
    assert sizes[0] > sizes[1] > sizes[2]


def test_a_clip_that_h264_cannot_hold_travels_as_jpeg() -> None:
    odd = sample(Modality.VIDEO)[:, :63]
    reduced = sample_type(Modality.VIDEO).reduce(PayloadForm.H264, Reduced(odd), None, SPEC, FormSettings())
    payload = encode_payload(odd, Modality.VIDEO, reduced.encoded)
    assert payload.encoding == sample_pb2.PAYLOAD_ENCODING_JPEG_FRAMES
    assert decode_payload(payload, Modality.VIDEO).shape == odd.shape


def test_an_error_of_the_encoder_sends_the_frames_as_jpeg_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = []

    def refuse(clip: NDArray[np.uint8], max_bytes: int = 0) -> bytes:
        raise OSError("no such encoder")

    monkeypatch.setattr(video, "encode_h264", refuse)
    monkeypatch.setattr(video.log, "warning", lambda event, **fields: events.append(event))
    clip, kind = sample(Modality.VIDEO), video.VideoType()
    for _ in range(3):
        reduced = kind.reduce(PayloadForm.H264, Reduced(clip), None, SPEC, FormSettings())
        payload = encode_payload(clip, Modality.VIDEO, reduced.encoded)
        assert payload.encoding == sample_pb2.PAYLOAD_ENCODING_JPEG_FRAMES
        check_payload(payload, Modality.VIDEO)
    assert events == ["h264_failed"]


@pytest.mark.parametrize("shape", [(4, 64, 128, 3), (4, 80, 96, 3), (5, 64, 96, 3), (4, 64, 96, 1), (1, 4096, 4096, 3)])
def test_an_h264_stream_is_refused_where_its_headers_differ_from_the_payload(shape: tuple[int, ...]) -> None:
    stream = encode_h264(sample(Modality.VIDEO))
    check_h264(stream, (4, 64, 96, 3))
    with pytest.raises(SampleRejected):
        check_h264(stream, shape)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
    st.floats(0.2, 1),
)
def test_a_damaged_h264_stream_is_decoded_or_refused(changes: list[tuple[float, int]], share: float) -> None:
    data = bytearray(STREAM[: round(share * len(STREAM))])
    for place, value in changes:
        data[int(place * len(data))] = value
    payload = sample_pb2.Payload(encoding=sample_pb2.PAYLOAD_ENCODING_H264, data=bytes(data), shape=(4, 64, 96, 3))
    try:
        decoded = decode_payload(payload, Modality.VIDEO)
    except SampleRejected:
        return
    assert decoded.shape == (4, 64, 96, 3)
