"""Between the project's own types and the messages of `vedette.v1`; everything received is checked here.

A message that breaks a rule raises SampleRejected with a reason that goes back to the sender.
"""

import math
import threading
import uuid
from datetime import UTC, datetime
from typing import TypeGuard

import numpy as np
import zstandard
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from shared.errors import SampleRejected
from shared.images import JPEG_MAGIC, MAX_IMAGE_PIXELS, PNG_MAGIC, announced_size, decode_image, encode_png
from shared.modality import Modality
from shared.samples import Decision, ImageCrop, Opinion, Region, Route, Sample, Screening, Values, Verdict
from vedette.v1 import sample_pb2

MAX_MESSAGE_BYTES = 32 * 2**20
MAX_SAMPLES_A_REQUEST = 1024
MAX_PAYLOAD_BYTES = 16 * 2**20
MAX_VALUES = 2**24
MAX_TEXT_CHARACTERS = 512
MAX_MAP_CELLS = 2**20
EARLIEST_S = datetime(1900, 1, 1, tzinfo=UTC).timestamp()
LATEST_S = datetime(9000, 1, 1, tzinfo=UTC).timestamp()  # some room to the end of the calendar, for time zones
ZSTD_FROM_BYTES = 256  # below this a frame's header costs more than it saves

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
_FLOAT_ENCODINGS = (sample_pb2.PAYLOAD_ENCODING_FLOAT32, sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD)
_IMAGE_MAGIC = {sample_pb2.PAYLOAD_ENCODING_PNG: PNG_MAGIC, sample_pb2.PAYLOAD_ENCODING_JPEG: JPEG_MAGIC}
_RANK = {Modality.TABULAR: 1, Modality.SERIES: 2, Modality.IMAGE: 3, Modality.VIDEO: 4}


_of_thread = threading.local()


def is_image(values: Values) -> TypeGuard[NDArray[np.uint8]]:
    """Whether the values of a sample are pixels."""
    return values.dtype == np.uint8


def encode_payload(values: Values, encoded: bytes | None = None) -> sample_pb2.Payload:
    """The smallest lossless payload of one sample: the source's own file bytes, PNG, or float32.

    Raises SampleRejected for one that is too large to travel, or pixels that are no image.
    """
    payload = _encode_image(values, encoded) if is_image(values) else _encode_floats(values)
    if len(payload.data) > MAX_PAYLOAD_BYTES or math.prod(payload.shape) > _max_values(payload.encoding):
        raise SampleRejected(
            f"a sample of shape {tuple(payload.shape)} has {len(payload.data)} bytes, and the limit is "
            f"{MAX_PAYLOAD_BYTES} bytes of at most {MAX_VALUES} numbers or {MAX_IMAGE_PIXELS} pixels"
        )
    return payload


def _encode_image(pixels: NDArray[np.uint8], encoded: bytes | None) -> sample_pb2.Payload:
    if pixels.ndim != _RANK[Modality.IMAGE]:
        raise SampleRejected(f"pixels of shape {pixels.shape} are not (height, width, bands)")
    if encoded is not None and len(encoded) <= MAX_PAYLOAD_BYTES and _announces(encoded, pixels.shape):
        for encoding, magic in _IMAGE_MAGIC.items():
            if encoded.startswith(magic):
                return sample_pb2.Payload(encoding=encoding, data=encoded, shape=pixels.shape)
    return sample_pb2.Payload(encoding=sample_pb2.PAYLOAD_ENCODING_PNG, data=encode_png(pixels), shape=pixels.shape)


def _announces(data: bytes, shape: tuple[int, ...]) -> bool:
    """Whether a file's header agrees with a shape; in pixels, since a JPEG file may say that it wants to be turned."""
    size = announced_size(data)
    return size is not None and size[0] * size[1] == shape[0] * shape[1]


def _encode_floats(values: Values) -> sample_pb2.Payload:
    raw = np.asarray(values, dtype="<f4").tobytes()
    if len(raw) >= ZSTD_FROM_BYTES:
        packed = _compressor().compress(raw)
        if len(packed) < len(raw):
            encoding = sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD
            return sample_pb2.Payload(encoding=encoding, data=packed, shape=values.shape)
    return sample_pb2.Payload(encoding=sample_pb2.PAYLOAD_ENCODING_FLOAT32, data=raw, shape=values.shape)


def _compressor() -> zstandard.ZstdCompressor:
    """This thread's own: one cannot be shared, and making it takes as long as a small sample."""
    if not hasattr(_of_thread, "compressor"):
        _of_thread.compressor = zstandard.ZstdCompressor(level=3)
    compressor: zstandard.ZstdCompressor = _of_thread.compressor
    return compressor


def _max_values(encoding: int) -> int:
    return 3 * MAX_IMAGE_PIXELS if encoding in _IMAGE_MAGIC else MAX_VALUES


def decode_payload(payload: sample_pb2.Payload, modality: Modality) -> Values:
    """The values of one sample; raises SampleRejected for anything that is not exactly such a payload.

    NaN is kept: it may stand for a missing value, which is for the preprocessing to judge.
    """
    if len(payload.data) > MAX_PAYLOAD_BYTES:
        raise SampleRejected(f"payload of {len(payload.data)} bytes, and the limit is {MAX_PAYLOAD_BYTES}")
    if len(payload.shape) != _RANK[modality]:
        raise SampleRejected(f"a shape of {len(payload.shape)} numbers, and a {modality} sample has {_RANK[modality]}")
    shape = tuple(payload.shape)
    if not 0 < math.prod(shape) <= _max_values(payload.encoding):
        raise SampleRejected(f"shape {shape} is empty, or holds more than {_max_values(payload.encoding)} values")
    if payload.encoding in _FLOAT_ENCODINGS and modality is not Modality.IMAGE:
        return _decode_floats(payload, shape)
    if payload.encoding in _IMAGE_MAGIC and modality is Modality.IMAGE:
        return _decode_image(payload, shape)
    raise SampleRejected(f"payload encoding {payload.encoding} does not fit a {modality} sample")


def decode_crop(payload: sample_pb2.Payload) -> ImageCrop | None:
    """Which part of an image the pixels of a payload are, None for all of it; raises SampleRejected for nonsense."""
    if not payload.HasField("crop"):
        return None
    part = payload.crop
    if not 0 < part.height * part.width <= MAX_IMAGE_PIXELS:
        raise SampleRejected(f"a part of an image of {part.height} x {part.width} pixels")
    if payload.encoding not in _IMAGE_MAGIC or len(payload.shape) != _RANK[Modality.IMAGE]:
        raise SampleRejected("a part of an image in a payload that holds no pixels")
    if not part.HasField("corner"):
        return ImageCrop(part.height, part.width, None)
    region = Region(part.corner.top, part.corner.left, payload.shape[0], payload.shape[1])
    if region.rows.stop > part.height or region.columns.stop > part.width:
        raise SampleRejected(f"a part of {region.height} x {region.width} pixels that lies outside its image")
    return ImageCrop(part.height, part.width, region)


def _crop_to_message(part: ImageCrop) -> sample_pb2.ImageCrop:
    message = sample_pb2.ImageCrop(height=part.height, width=part.width)
    if part.region is not None:
        message.corner.CopyFrom(sample_pb2.Corner(top=part.region.top, left=part.region.left))
    return message


def _decode_floats(payload: sample_pb2.Payload, shape: tuple[int, ...]) -> NDArray[np.float32]:
    size = math.prod(shape) * 4
    data = payload.data
    if payload.encoding == sample_pb2.PAYLOAD_ENCODING_FLOAT32_ZSTD:
        try:
            if zstandard.frame_content_size(data) != size:
                raise SampleRejected(f"compressed payload does not hold the {size} bytes of its shape {shape}")
            data = zstandard.ZstdDecompressor().decompress(data, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise SampleRejected(f"payload is no zstd frame: {error}") from None
    if len(data) != size:
        raise SampleRejected(f"payload of {len(data)} bytes where shape {shape} has {size}")
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)


def _decode_image(payload: sample_pb2.Payload, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if not payload.data.startswith(_IMAGE_MAGIC[payload.encoding]):
        raise SampleRejected("payload is no image of the encoding it names")
    if not _announces(payload.data, shape):
        raise SampleRejected(f"image whose header does not announce the shape {shape} of its payload")
    pixels = decode_image(payload.data)
    if pixels.shape != shape:
        raise SampleRejected(f"image of shape {pixels.shape} where its payload says {shape}")
    return pixels


def sample_to_message(sample: Sample, screening: Screening) -> sample_pb2.Sample:
    """One sample with its screening, as it lies in the spool and travels to the cloud.

    Raises SampleRejected for one that the cloud would refuse: too large, or no image.
    """
    message = sample_pb2.Sample(
        sample_id=sample.sample_id.bytes,
        modality=_MODALITIES[sample.modality],
        captured_at=timestamp(sample.captured_at_s),
        source_id=sample.source_id,
        origin=_short_text(sample.origin),
        payload=encode_payload(sample.values, sample.encoded),
        screening=sample_pb2.Screening(
            score=screening.score,
            p_value=screening.p_value,
            extrapolated=screening.extrapolated,
            route=_ROUTES[screening.route],
            bundle_id=screening.bundle_id,
            calibration_id=screening.calibration_id,
            artefact=screening.artefact,
        ),
    )
    if sample.crop is not None:
        message.payload.crop.CopyFrom(_crop_to_message(sample.crop))
    if screening.anomaly_map is not None:
        message.screening.anomaly_map.CopyFrom(_map_to_message(screening.anomaly_map))
    return message


def sample_from_message(message: sample_pb2.Sample) -> tuple[Sample, Screening]:
    """The sample and its screening; raises SampleRejected for a message that breaks a rule."""
    modality = _MODALITY_OF.get(message.modality)
    route = _ROUTE_OF.get(message.screening.route)
    if modality is None or route is None:
        raise SampleRejected(f"modality {message.modality} or route {message.screening.route} is unknown here")
    texts = (message.source_id, message.origin, message.screening.bundle_id, message.screening.artefact)
    if any(len(text) > MAX_TEXT_CHARACTERS for text in (*texts, message.screening.calibration_id)):
        raise SampleRejected(f"a text is longer than {MAX_TEXT_CHARACTERS} characters")
    if not 0.0 < message.screening.p_value <= 1.0:
        raise SampleRejected(f"p-value {message.screening.p_value} does not lie in (0, 1]")
    sample = Sample(
        sample_id=parse_sample_id(message.sample_id),
        source_id=message.source_id,
        modality=modality,
        captured_at_s=_seconds(message.captured_at),
        origin=message.origin,
        values=decode_payload(message.payload, modality),
        crop=decode_crop(message.payload),
    )
    screening = Screening(
        score=message.screening.score,
        p_value=message.screening.p_value,
        extrapolated=message.screening.extrapolated,
        route=route,
        bundle_id=message.screening.bundle_id,
        calibration_id=message.screening.calibration_id,
        artefact=message.screening.artefact,
        anomaly_map=_map_from_message(message.screening.anomaly_map)
        if message.screening.HasField("anomaly_map")
        else None,
    )
    return sample, screening


def verdict_to_message(verdict: Verdict) -> sample_pb2.Verdict:
    """A verdict as it is stored and sent to its device."""
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
    """The verdict; an unknown decision is UNDECIDED, so that it never counts as normal."""
    return Verdict(
        sample_id=parse_sample_id(message.sample_id),
        decision=_DECISION_OF.get(message.decision, Decision.UNDECIDED),
        p_value=message.p_value,
        extrapolated=message.extrapolated,
        opinions=tuple(
            Opinion(opinion.analyzer, opinion.score, opinion.p_value, opinion.extrapolated)
            for opinion in message.opinions
        ),
        bundle_id=message.bundle_id,
        judged_at_s=_seconds(message.judged_at),
        anomaly_map=_map_from_message(message.anomaly_map) if message.HasField("anomaly_map") else None,
        contributions=tuple((item.name, item.share) for item in message.contributions),
        reason=message.reason,
    )


def parse_sample_id(data: bytes) -> uuid.UUID:
    """The sample id; raises SampleRejected unless `data` is the 16 bytes of a UUIDv7."""
    if len(data) != 16 or uuid.UUID(bytes=data).version != 7:
        raise SampleRejected("sample_id is not the 16 bytes of a UUIDv7")
    return uuid.UUID(bytes=data)


def _short_text(text: str) -> str:
    """The end of a long text, which tells most of a path; file names that are no Unicode are made so."""
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
    """Seconds since the epoch, to the microsecond; raises SampleRejected for a time outside the calendar."""
    whole, nanos = whole_seconds(seconds)
    return Timestamp(seconds=whole, nanos=nanos)


def whole_seconds(seconds: float) -> tuple[int, int]:
    """Seconds and nanoseconds as `timestamp` holds them; raises SampleRejected as that does."""
    if not LATEST_S >= seconds >= EARLIEST_S:
        raise SampleRejected(f"a time stamp of {seconds} s lies outside the calendar")
    microseconds = round(seconds * 1e6)
    return microseconds // 10**6, microseconds % 10**6 * 1000


def _seconds(timestamp: Timestamp) -> float:
    seconds = timestamp.seconds + timestamp.nanos / 1e9
    if not (0 <= timestamp.nanos < 10**9 and LATEST_S >= seconds >= EARLIEST_S):
        raise SampleRejected(
            f"a time stamp of {timestamp.seconds} s and {timestamp.nanos} ns lies outside the calendar"
        )
    return seconds
