"""Live views: the newest sample of a source as a message for people, and the checks of a received one."""

import math
from dataclasses import dataclass

from shared.errors import SampleRejected
from shared.modalities import sample_type
from shared.modality import Modality
from shared.samples import Route, Screening, Values
from shared.wire import (
    MAX_TEXT_CHARACTERS,
    modality_of,
    modality_to_wire,
    route_of,
    screening_from_message,
    screening_to_message,
    seconds_of,
    short_text,
    timestamp,
)
from vedette.v1 import fleet_pb2

REQUEST_ID_BYTES = 16
MAX_ANSWER_BYTES = 72 * 1024  # a payload of 64 KiB, and its texts


@dataclass(frozen=True, slots=True)
class NewestSample:
    """Newest sample of a source; `values` are whole."""

    modality: Modality
    captured_at_s: float
    origin: str
    values: Values
    screening: Screening


@dataclass(frozen=True, slots=True)
class ShownSample:
    """Received sample of a live view.

    `values`: readings, or the pixels (height, width, 3) of a preview. `every`: readings have every n-th time point.
    `image_size`: height and width of the whole image; None for readings.
    """

    modality: Modality
    captured_at_s: float
    origin: str
    values: Values
    every: int
    image_size: tuple[int, int] | None
    screening: Screening


def live_sample(newest: NewestSample) -> fleet_pb2.LiveSample:
    """Return the message of a sample; raises SampleRejected if it has no small form."""
    payload, every = sample_type(newest.modality).live_payload(newest.values)
    return fleet_pb2.LiveSample(
        modality=modality_to_wire(newest.modality),
        captured_at=timestamp(newest.captured_at_s),
        origin=short_text(newest.origin),
        payload=payload,
        every=every,
        screening=screening_to_message(newest.screening),
    )


def check_live_sample(message: fleet_pb2.LiveSample) -> tuple[Modality, Route]:
    """Return modality and route of a received sample; raises SampleRejected for a message that breaks a rule.

    No pixel is decoded.
    """
    screening = message.screening
    modality, route = modality_of(message), route_of(message)
    if modality is None or route is None:
        raise SampleRejected(f"modality {message.modality} or route {screening.route} is unknown here")
    texts = (message.origin, screening.bundle_id, screening.artefact, screening.calibration_id)
    if any(len(text) > MAX_TEXT_CHARACTERS or "\0" in text for text in texts):
        raise SampleRejected(f"a text holds a NUL character, or is longer than {MAX_TEXT_CHARACTERS} characters")
    if not 0.0 < screening.p_value <= 1.0 or not math.isfinite(screening.score):
        raise SampleRejected("the p-value does not lie in (0, 1], or the score is not finite")
    if not message.every:
        raise SampleRejected("every 0th time point")
    seconds_of(message.captured_at)
    sample_type(modality).check_live(message.payload)
    return modality, route


def shown_sample(message: fleet_pb2.LiveSample) -> ShownSample:
    """Return a received sample, decoded; raises SampleRejected as `check_live_sample` does, and for damaged pixels."""
    modality, route = check_live_sample(message)
    values, crop = sample_type(modality).live_values(message.payload), message.payload.crop
    return ShownSample(
        modality=modality,
        captured_at_s=seconds_of(message.captured_at),
        origin=message.origin,
        values=values,
        every=message.every,
        image_size=(crop.height, crop.width) if message.payload.HasField("crop") else None,
        screening=screening_from_message(message.screening, route),
    )
