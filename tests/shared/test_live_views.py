"""Live views: small forms of samples of each modality, and the refusal of what a hostile device sends."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.errors import SampleRejected
from shared.images import encode_jpeg
from shared.live_views import MAX_ANSWER_BYTES, NewestSample, check_live_sample, live_sample, shown_sample
from shared.modalities.live import MAX_LIVE_BYTES, MAX_LIVE_VALUES, MAX_SIDE_PIXELS
from shared.modality import Modality
from shared.samples import Route, Screening
from shared.wire import MAX_TEXT_CHARACTERS
from tests.shared.test_modalities import sample
from vedette.v1 import fleet_pb2, sample_pb2

SCREENING = Screening(3.5, 0.01, True, Route.ACCEPT, "plant-1", "c", "int8_openvino")


def newest(modality: Modality, values: NDArray[Any]) -> NewestSample:
    return NewestSample(modality, 1_700_000_000.5, "readings.csv:7", values, SCREENING)


def message(modality: Modality, values: NDArray[Any] | None = None) -> fleet_pb2.LiveSample:
    made = live_sample(newest(modality, sample(modality) if values is None else values))
    return fleet_pb2.LiveSample.FromString(made.SerializeToString())


@pytest.mark.parametrize("modality", list(Modality))
def test_a_sample_arrives_with_its_screening_and_time(modality: Modality) -> None:
    values, shown = sample(modality), shown_sample(message(modality))
    assert (shown.modality, shown.captured_at_s, shown.origin) == (modality, 1_700_000_000.5, "readings.csv:7")
    assert (shown.screening, shown.every) == (SCREENING, 1)
    if shown.image_size is None:
        assert np.array_equal(shown.values, values)
    else:
        frame = values[-1] if modality is Modality.VIDEO else values
        assert shown.image_size == frame.shape[:2] == shown.values.shape[:2]
        assert np.abs(shown.values.astype(float) - frame).mean() < 8


@pytest.mark.parametrize("bands", [1, 3])
def test_a_large_grainy_image_becomes_a_small_file(bands: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, bands)).astype(np.uint8)
    made = message(Modality.IMAGE, noise)
    assert len(made.payload.data) <= MAX_LIVE_BYTES
    assert made.ByteSize() < MAX_ANSWER_BYTES
    shown = shown_sample(made)
    assert shown.image_size == (1500, 2000)
    assert max(shown.values.shape) <= MAX_SIDE_PIXELS


@pytest.mark.parametrize("shape", [(3000, 7), (16_400, 1), (3, 9000)])
def test_a_long_window_keeps_every_nth_time_point_and_the_last_one(shape: tuple[int, int]) -> None:
    window = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    shown = shown_sample(message(Modality.SERIES, window))
    assert shown.values.size <= MAX_LIVE_VALUES
    assert shown.every > 1
    assert np.array_equal(shown.values[::-1], window[::-1][:: shown.every])


@pytest.mark.parametrize(
    ("modality", "values"),
    [
        (Modality.TABULAR, np.zeros(MAX_LIVE_VALUES + 1, np.float32)),
        (Modality.SERIES, np.zeros((2, MAX_LIVE_VALUES + 1), np.float32)),
        (Modality.IMAGE, np.zeros((0, 4, 3), np.uint8)),
        (Modality.IMAGE, np.zeros((4, 4), np.uint8)),
    ],
)
def test_a_sample_without_a_small_form_is_refused(modality: Modality, values: NDArray[Any]) -> None:
    with pytest.raises(SampleRejected):
        live_sample(newest(modality, values))


def larger_picture(made: fleet_pb2.LiveSample) -> None:
    pixels = np.zeros((MAX_SIDE_PIXELS + 1, 8, 3), np.uint8)
    made.payload.data, made.payload.shape[:] = encode_jpeg(pixels), pixels.shape
    made.payload.ClearField("crc32")


def announces_other_pixels(made: fleet_pb2.LiveSample) -> None:
    made.payload.data, made.payload.shape[:] = encode_jpeg(np.zeros((5000, 5000, 3), np.uint8)), (8, 8, 3)
    made.payload.ClearField("crc32")


def endless_shape(made: fleet_pb2.LiveSample) -> None:
    made.payload.shape[:] = [2**32 - 1] * 50_000


HOSTILE: dict[str, tuple[Modality, Callable[[fleet_pb2.LiveSample], Any]]] = {
    "no modality": (Modality.IMAGE, lambda made: made.ClearField("modality")),
    "no screening": (Modality.IMAGE, lambda made: made.ClearField("screening")),
    "no payload": (Modality.SERIES, lambda made: made.ClearField("payload")),
    "no time": (Modality.SERIES, lambda made: made.captured_at.FromSeconds(-(2**33))),
    "long text": (Modality.SERIES, lambda made: setattr(made, "origin", "x" * (MAX_TEXT_CHARACTERS + 1))),
    "NUL": (Modality.SERIES, lambda made: setattr(made.screening, "bundle_id", "a\0b")),
    "no p-value": (Modality.SERIES, lambda made: setattr(made.screening, "p_value", 2.0)),
    "NaN": (Modality.SERIES, lambda made: setattr(made.screening, "score", float("nan"))),
    "no step": (Modality.SERIES, lambda made: setattr(made, "every", 0)),
    "page of HTML": (Modality.IMAGE, lambda made: setattr(made.payload, "data", b"<script>alert(1)</script>")),
    "PNG": (Modality.IMAGE, lambda made: setattr(made.payload, "encoding", sample_pb2.PAYLOAD_ENCODING_PNG)),
    "cut": (Modality.IMAGE, lambda made: setattr(made.payload, "data", made.payload.data[:-40])),
    "whole picture": (Modality.IMAGE, lambda made: made.payload.ClearField("crop")),
    "large picture": (Modality.IMAGE, larger_picture),
    "bomb": (Modality.VIDEO, announces_other_pixels),
    "readings as a picture": (Modality.SERIES, lambda made: setattr(made, "modality", sample_pb2.MODALITY_IMAGE)),
    "picture as readings": (Modality.IMAGE, lambda made: setattr(made, "modality", sample_pb2.MODALITY_SERIES)),
    "too many values": (Modality.SERIES, lambda made: made.payload.shape.__setitem__(0, MAX_LIVE_VALUES)),
    "endless shape": (Modality.SERIES, endless_shape),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_hostile_message_is_refused_before_pixels_are_decoded(fault: str) -> None:
    modality, spoil = HOSTILE[fault]
    made = message(modality)
    check_live_sample(made)
    spoil(made)
    with pytest.raises(SampleRejected):
        check_live_sample(made)
    with pytest.raises(SampleRejected):
        shown_sample(made)
