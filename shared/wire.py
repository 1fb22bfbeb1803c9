"""Conversion between the project's own types and the messages of `vedette.v1`, with checks of all that is received.

A message that breaks a rule raises SampleRejected with a reason that goes back to the sender.
"""

import math
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from shared.errors import SampleRejected
from shared.images import MAX_IMAGE_PIXELS
from shared.modalities import sample_type
from shared.modalities.base import MAX_PAYLOAD_BYTES
from shared.modality import Modality
from shared.samples import Decision, ImageCrop, Opinion, Region, Route, Sample, Screening, Values, Verdict
from vedette.v1 import fleet_pb2, sample_pb2

MAX_MESSAGE_BYTES = 32 * 2**20
MAX_SAMPLES_PER_REQUEST = 1024
MAX_TEXT_CHARACTERS = 512
MAX_MAP_CELLS = 2**20
EARLIEST_S = datetime(1900, 1, 1, tzinfo=UTC).timestamp()
LATEST_S = datetime(9000, 1, 1, tzinfo=UTC).timestamp()  # leaves room for time zones before the calendar ends

_MODALITIES = {
    Modality.TABULAR: sample_pb2.MODALITY_TABULAR,
    Modality.SERIES: sample_pb2.MODALITY_SERIES,
    Modality.IMAGE: sample_pb2.MODALITY_IMAGE,
    Modality.VIDEO: sample_pb2.MODALITY_VIDEO,
}
_ROUTES = {
    Route.ACCEPT: sample_pb2.ROUTE_ACCEPT,
    Route.FORWARD: sample_pb2.ROUTE_FORWARD,
    Route.ALARM: sample_pb2.ROUTE_ALARM,
    Route.AUDIT: sample_pb2.ROUTE_AUDIT,
}
_DECISIONS = {
    Decision.NORMAL: sample_pb2.DECISION_NORMAL,
    Decision.ANOMALOUS: sample_pb2.DECISION_ANOMALOUS,
    Decision.UNDECIDED: sample_pb2.DECISION_UNDECIDED,
}
_MODALITY_OF = {number: modality for modality, number in _MODALITIES.items()}
_ROUTE_OF = {number: route for route, number in _ROUTES.items()}
_DECISION_OF = {number: decision for decision, number in _DECISIONS.items()}
_READINGS = (sample_pb2.PAYLOAD_ENCODING_FLOAT32, sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD)


def encode_payload(values: Values, modality: Modality, encoded: bytes | None = None) -> sample_pb2.Payload:
    """Return the payload of one sample: `encoded` where that is one of this modality's forms, else without loss.

    Raises SampleRejected if the sample is too large to travel, or its values do not fit the modality.
    """
    kind = sample_type(modality)
    payload = kind.encode(values, encoded)
    if len(payload.data) > MAX_PAYLOAD_BYTES or math.prod(payload.shape) > kind.max_values:
        raise SampleRejected(
            f"a sample of shape {tuple(payload.shape)} has {len(payload.data)} bytes; the limit is "
            f"{MAX_PAYLOAD_BYTES} bytes and {kind.max_values} values"
        )
    return payload


def check_payload(payload: sample_pb2.Payload, modality: Modality) -> None:
    """Raise SampleRejected for what `decode_payload` would refuse, as far as that shows without decoding pixels.

    Looks at encoding, size, shape, file headers, frame counts, lengths and checksums, and at the crop.
    """
    sample_type(modality).check(payload)
    decode_crop(payload)


def decode_payload(payload: sample_pb2.Payload, modality: Modality) -> Values:
    """Return the values of one sample; raises SampleRejected for anything that is not exactly such a payload.

    NaN is kept: it may stand for a missing value, which the preprocessing judges.
    """
    return sample_type(modality).decode(payload)


def decoded_bytes(encoding: int, shape: Sequence[int]) -> int:
    """Return the size of a payload's values after decoding: float32 readings, or one byte for each band of a pixel."""
    return math.prod(shape) * (4 if encoding in _READINGS else 1)


def decode_crop(payload: sample_pb2.Payload) -> ImageCrop | None:
    """Return which crop of its image the payload holds, None for all of it; raises SampleRejected if it is invalid."""
    if not payload.HasField("crop"):
        return None
    crop = payload.crop
    if not 0 < crop.height * crop.width <= MAX_IMAGE_PIXELS:
        raise SampleRejected(f"crop of an image of {crop.height} x {crop.width} pixels")
    if payload.encoding in _READINGS or len(payload.shape) < 3:
        raise SampleRejected("crop of an image in a payload that holds no pixels")
    if not crop.HasField("corner"):
        return ImageCrop(crop.height, crop.width, None)
    if len(payload.shape) != 3:
        raise SampleRejected("crop of a clip: a clip travels whole, or as a preview")
    height, width = payload.shape[0], payload.shape[1]
    region = Region(crop.corner.top, crop.corner.left, height, width)
    if region.rows.stop > crop.height or region.columns.stop > crop.width:
        raise SampleRejected(f"crop of {height} x {width} pixels lies outside its image")
    return ImageCrop(crop.height, crop.width, region)


def _crop_to_message(crop: ImageCrop) -> sample_pb2.ImageCrop:
    message = sample_pb2.ImageCrop(height=crop.height, width=crop.width)
    if crop.region is not None:
        message.corner.CopyFrom(sample_pb2.Corner(top=crop.region.top, left=crop.region.left))
    return message


def sample_to_message(sample: Sample, screening: Screening) -> sample_pb2.Sample:
    """Return one sample with its screening as the message that the spool keeps and the uplink sends.

    Raises SampleRejected for a sample that the cloud would refuse: too large, or not of its modality.
    """
    message = screened_message(sample, screening, encode_payload(sample.values, sample.modality, sample.encoded))
    if sample.crop is not None:
        message.payload.crop.CopyFrom(_crop_to_message(sample.crop))
    return message


def screened_message(sample: Sample, screening: Screening, payload: sample_pb2.Payload) -> sample_pb2.Sample:
    """Return the message of a sample whose values are in `payload` already; raises SampleRejected for its map."""
    message = sample_pb2.Sample(
        sample_id=sample.sample_id.bytes,
        modality=_MODALITIES[sample.modality],
        captured_at=timestamp(sample.captured_at_s),
        source_id=sample.source_id,
        origin=short_text(sample.origin),
        payload=payload,
        screening=screening_to_message(screening),
    )
    if screening.anomaly_map is not None:
        message.screening.anomaly_map.CopyFrom(_map_to_message(screening.anomaly_map))
    return message


def screening_to_message(screening: Screening) -> sample_pb2.Screening:
    """Return a screening as a message, without its map."""
    return sample_pb2.Screening(
        score=screening.score,
        p_value=screening.p_value,
        extrapolated=screening.extrapolated,
        route=_ROUTES[screening.route],
        bundle_id=screening.bundle_id,
        calibration_id=screening.calibration_id,
        artefact=screening.artefact,
    )


def modality_to_wire(modality: Modality) -> sample_pb2.Modality:
    """Return the number of a modality in messages."""
    return _MODALITIES[modality]


def modality_of(message: sample_pb2.Sample | fleet_pb2.LiveSample) -> Modality | None:
    """Return the modality of a message; None for one that is unknown here."""
    return _MODALITY_OF.get(message.modality)


def route_of(message: sample_pb2.Sample | fleet_pb2.LiveSample) -> Route | None:
    """Return the route of a message; None for one that is unknown here."""
    return _ROUTE_OF.get(message.screening.route)


def undecoded_from_message(message: sample_pb2.Sample) -> tuple[Sample, Screening]:
    """Return the sample without its values, and its screening, after all checks that need no decoding.

    Raises SampleRejected for a message that breaks a rule; see `check_payload`.
    """
    modality, sent = _MODALITY_OF.get(message.modality), message.screening
    route = _ROUTE_OF.get(sent.route)
    if modality is None or route is None:
        raise SampleRejected(f"modality {message.modality} or route {message.screening.route} is unknown here")
    texts = (message.source_id, message.origin, message.screening.bundle_id, message.screening.artefact)
    if any(len(text) > MAX_TEXT_CHARACTERS for text in (*texts, message.screening.calibration_id)):
        raise SampleRejected(f"a text is longer than {MAX_TEXT_CHARACTERS} characters")
    if any("\0" in text for text in (*texts, message.screening.calibration_id)):
        raise SampleRejected("a text holds a NUL character")
    if not 0.0 < message.screening.p_value <= 1.0:
        raise SampleRejected(f"p-value {message.screening.p_value} does not lie in (0, 1]")
    check_payload(message.payload, modality)
    sample = Sample(
        sample_id=parse_sample_id(message.sample_id),
        source_id=message.source_id,
        modality=modality,
        captured_at_s=seconds_of(message.captured_at),
        origin=message.origin,
        values=np.empty(0, np.float32),
        crop=decode_crop(message.payload),
    )
    anomaly_map = _map_from_message(sent.anomaly_map) if sent.HasField("anomaly_map") else None
    return sample, screening_from_message(sent, route, anomaly_map)


def screening_from_message(
    message: sample_pb2.Screening, route: Route, anomaly_map: NDArray[np.uint8] | None = None
) -> Screening:
    """Return a received screening with its decoded map; the caller has checked its texts."""
    return Screening(
        score=message.score,
        p_value=message.p_value,
        extrapolated=message.extrapolated,
        route=route,
        bundle_id=message.bundle_id,
        calibration_id=message.calibration_id,
        artefact=message.artefact,
        anomaly_map=anomaly_map,
    )


def verdict_to_message(verdict: Verdict) -> sample_pb2.Verdict:
    """Return a verdict as the message that is stored and sent to its device."""
    message = sample_pb2.Verdict(
        sample_id=verdict.sample_id.bytes,
        decision=_DECISIONS[verdict.decision],
        p_value=verdict.p_value,
        extrapolated=verdict.extrapolated,
        opinions=[
            sample_pb2.AnalyzerOpinion(
                analyzer=opinion.analyzer,
                score=opinion.score,
                p_value=opinion.p_value,
                extrapolated=opinion.extrapolated,
            )
            for opinion in verdict.opinions
        ],
        contributions=[sample_pb2.Contribution(name=name, share=share) for name, share in verdict.contributions],
        bundle_id=verdict.bundle_id,
        judged_at=timestamp(verdict.judged_at_s),
        reason=verdict.reason,
    )
    if verdict.anomaly_map is not None:
        message.anomaly_map.CopyFrom(_map_to_message(verdict.anomaly_map))
    return message


def verdict_from_message(message: sample_pb2.Verdict) -> Verdict:
    """Return the verdict; an unknown decision becomes UNDECIDED, so that it never counts as normal."""
    return Verdict(
        sample_id=parse_sample_id(message.sample_id),
        decision=_DECISION_OF.get(message.decision, Decision.UNDECIDED),
        p_value=message.p_value if message.HasField("p_value") else None,
        extrapolated=message.extrapolated,
        opinions=tuple(
            Opinion(opinion.analyzer, opinion.score, opinion.p_value, opinion.extrapolated)
            for opinion in message.opinions
        ),
        bundle_id=message.bundle_id,
        judged_at_s=seconds_of(message.judged_at),
        anomaly_map=_map_from_message(message.anomaly_map) if message.HasField("anomaly_map") else None,
        contributions=tuple((item.name, item.share) for item in message.contributions),
        reason=message.reason,
    )


def parse_sample_id(data: bytes) -> uuid.UUID:
    """Return the sample id; raises SampleRejected unless `data` is the 16 bytes of a UUIDv7."""
    if len(data) != 16 or uuid.UUID(bytes=data).version != 7:
        raise SampleRejected("sample_id is not the 16 bytes of a UUIDv7")
    return uuid.UUID(bytes=data)


def short_text(text: str) -> str:
    """Return a text of bounded length as Unicode; the end is kept, which identifies a path best."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_TEXT_CHARACTERS else "…" + text[1 - MAX_TEXT_CHARACTERS :]


def _map_to_message(anomaly_map: NDArray[np.uint8]) -> sample_pb2.AnomalyMap:
    if anomaly_map.ndim != 2 or anomaly_map.dtype != np.uint8 or not 0 < anomaly_map.size <= MAX_MAP_CELLS:
        raise SampleRejected(
            f"an anomaly map is (height, width) uint8 of at most {MAX_MAP_CELLS} cells, and this one is "
            f"{anomaly_map.shape} {anomaly_map.dtype}"
        )
    height, width = anomaly_map.shape
    return sample_pb2.AnomalyMap(height=height, width=width, values=anomaly_map.tobytes())


def _map_from_message(message: sample_pb2.AnomalyMap) -> NDArray[np.uint8]:
    cells = message.height * message.width
    if not 0 < cells <= MAX_MAP_CELLS or cells != len(message.values):
        raise SampleRejected(f"anomaly map of {message.height} x {message.width} with {len(message.values)} bytes")
    return np.frombuffer(message.values, np.uint8).reshape(message.height, message.width)


def timestamp(seconds: float) -> Timestamp:
    """Return seconds since the epoch as a message, to the microsecond.

    Raises SampleRejected for a time outside EARLIEST_S to LATEST_S.
    """
    whole, nanos = whole_seconds(seconds)
    return Timestamp(seconds=whole, nanos=nanos)


def whole_seconds(seconds: float) -> tuple[int, int]:
    """Return seconds and nanoseconds as `timestamp` stores them; raises SampleRejected as `timestamp` does."""
    if not LATEST_S >= seconds >= EARLIEST_S:
        raise SampleRejected(f"a time stamp of {seconds} s lies outside the calendar")
    microseconds = round(seconds * 1e6)
    return microseconds // 10**6, microseconds % 10**6 * 1000


def seconds_of(timestamp: Timestamp) -> float:
    """Return a time in a message in seconds; raises SampleRejected for one outside EARLIEST_S to LATEST_S."""
    seconds = timestamp.seconds + timestamp.nanos / 1e9
    if not (0 <= timestamp.nanos < 10**9 and LATEST_S >= seconds >= EARLIEST_S):
        raise SampleRejected(
            f"a time stamp of {timestamp.seconds} s and {timestamp.nanos} ns lies outside the calendar"
        )
    return seconds
