"""Check of the samples of a request against their bundles, before anything is stored.

All samples of a request share most fields, so each combination of these is checked once. The first pass looks at fields
and decodes nothing; the second looks at payloads, plain readings together. A sample that is not clearly valid is
checked again by itself, which gives the reason of its rejection.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cloud.service.bundle_rules import BundleRule, Rules, check_fit
from cloud.service.traces import IngestTraces
from cloud.store.ingest import Received
from cloud.store.sample_rows import Row
from shared.errors import SampleRejected
from shared.logs import EventLog, Throttle
from shared.modalities import sample_type
from shared.modalities.base import MAX_PAYLOAD_BYTES, checked_shape
from shared.wire import (
    EARLIEST_S,
    LATEST_S,
    MAX_MAP_CELLS,
    MAX_TEXT_CHARACTERS,
    decoded_bytes,
    route_of,
    undecoded_from_message,
)
from vedette.v1 import sample_pb2

MAX_DECODED_BYTES = 2**30  # above the largest sample of any modality
MAX_DIMENSIONS = 4  # of a clip, the largest of any modality
MAX_COMBINATIONS = 4096
_NO_MAP = (None, None, None)
_LOG = EventLog("detection")
_throttle = Throttle()


@dataclass(frozen=True, slots=True)
class _Shared:
    """Valid values of the fields that samples share.

    `plain_bytes`: size of the payload of plain readings; 0 for other encodings.
    """

    source_id: str
    modality: str
    route: str
    bundle_id: str
    calibration_id: str
    artefact: str
    encoding: int
    shape: str
    decoded_bytes: int
    plain_bytes: int
    is_readings: bool
    rule: BundleRule


@dataclass(slots=True)
class CheckedFields:
    """Result of the first pass over a request, which `device_id` sent.

    `rows` holds None for a sample that `check_sample` must look at. `plain` are the places of plain readings, `others`
    those of payloads of another encoding, with their rules. `unknown` are bundles without a rule.
    """

    device_id: str
    received_at_s: float
    messages: Sequence[sample_pb2.Sample]
    rules: Rules
    traces: IngestTraces | None = None
    rows: list[Row | None] = field(default_factory=list)
    plain: list[int] = field(default_factory=list)
    others: list[tuple[int, BundleRule]] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    decoded_bytes: int = 0
    readings_bytes: int = 0  # that the second pass decodes


class SharedFields:
    """Combinations of fields that were valid before; a bundle never changes, so they stay valid."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], _Shared] = {}

    def find(self, key: tuple[object, ...], message: sample_pb2.Sample, rules: Rules) -> _Shared | None:
        """Return the combination `key` of a sample; None if it is not valid. Threads may share this."""
        shared = _shared(message, rules)
        if shared is not None:
            if len(self._known) >= MAX_COMBINATIONS:
                self._known = {}
            self._known[key] = shared
        return shared

    def get(self, key: tuple[object, ...]) -> _Shared | None:
        """Return a combination that was valid before, or None."""
        return self._known.get(key)


def check_fields(
    messages: Sequence[sample_pb2.Sample],
    rules: Rules,
    known: SharedFields,
    device_id: str,
    received_at_s: float,
    traces: IngestTraces | None = None,
) -> CheckedFields:
    """Return the rows of all samples whose fields are clearly valid, without a look into payloads.

    `traces` decides which samples are traced; None: none of them.
    """
    checked = CheckedFields(device_id, received_at_s, messages, rules, traces)
    for place, message in enumerate(messages):
        screening, payload = message.screening, message.payload
        if len(payload.shape) > MAX_DIMENSIONS:  # before anything is computed from it: a product takes seconds
            checked.rows.append(None)
            continue
        key = (
            message.modality,
            message.source_id,
            screening.bundle_id,
            screening.route,
            screening.calibration_id,
            screening.artefact,
            payload.encoding,
            *payload.shape,
        )
        shared = known.get(key) or known.find(key, message, rules)
        if shared is None and screening.bundle_id not in rules:
            checked.unknown.add(screening.bundle_id)
        row = _row(checked, message, shared) if shared is not None else None
        checked.rows.append(row)
        if row is None or shared is None:
            size = decoded_bytes(payload.encoding, payload.shape)
            checked.decoded_bytes += size if size <= MAX_DECODED_BYTES else 0  # beyond: it is refused
            checked.readings_bytes += size
            continue
        checked.decoded_bytes += shared.decoded_bytes
        if shared.plain_bytes:
            checked.plain.append(place)
        else:
            checked.others.append((place, shared.rule))
            checked.readings_bytes += shared.decoded_bytes if shared.is_readings else 0
    return checked


def check_payloads(checked: CheckedFields) -> list[Row | str]:
    """Return the row of each sample, or the reason why it can never be accepted. Blocking.

    Checks headers, lengths and checksums. Decodes readings and no pixels: the batcher decodes a payload once. A sample
    that turns out to be undecodable there gets an undecided verdict with the reason.
    """
    rows: list[Row | str | None] = list(checked.rows)
    messages = checked.messages
    readings = b"".join([messages[place].payload.data for place in checked.plain])
    if not np.isfinite(np.frombuffer(readings, "<f4")).all():
        for place in checked.plain:
            rows[place] = None
    for place, rule in checked.others:
        if problem := _problem(messages[place].payload, rule):
            rows[place] = problem
    return [
        row if row is not None else check_sample(message, checked) for row, message in zip(rows, messages, strict=True)
    ]


def check_sample(message: sample_pb2.Sample, request: CheckedFields) -> Row | str:
    """Return the row of one sample, or the reason why it can never be accepted. Blocking."""
    try:
        if (count := len(message.payload.shape)) > MAX_DIMENSIONS:
            raise SampleRejected(f"shape has {count} dimensions; no sample has more than {MAX_DIMENSIONS}")
        screened = message.screening
        texts = (message.source_id, message.origin, screened.bundle_id, screened.calibration_id, screened.artefact)
        if any("\0" in text for text in texts):
            raise SampleRejected("a text holds a NUL character")
        rule = check_fit(message, request.rules)
        sample, screening = undecoded_from_message(message)
        if sample.crop is None:
            sample_type(sample.modality).check_values(message.payload, rule.spec)
    except SampleRejected as error:
        return str(error)
    except Exception as error:  # otherwise the sample would stay in the spool and fail again
        return _failure(error)
    traced = _is_traced(message, request)
    return Received(sample, screening, message.payload, traced).row(request.device_id, request.received_at_s)


def _is_traced(message: sample_pb2.Sample, request: CheckedFields) -> bool:
    return request.traces is not None and request.traces.accepts(message.sample_id, message.traceparent)


def _shared(message: sample_pb2.Sample, rules: Rules) -> _Shared | None:
    """Return the shared fields of a sample; None if one of them is not valid."""
    screening, payload = message.screening, message.payload
    route = route_of(message)
    texts = (message.source_id, screening.bundle_id, screening.calibration_id, screening.artefact)
    if route is None or any("\0" in text or len(text) > MAX_TEXT_CHARACTERS for text in texts):
        return None
    try:
        rule = check_fit(message, rules)
        kind = sample_type(rule.modality)
        shape = checked_shape(payload, kind)
        kind.check_shape(shape, rule.spec)
    except SampleRejected:
        return None
    is_plain = payload.encoding == sample_pb2.PAYLOAD_ENCODING_FLOAT32
    if is_plain and not kind.has_vectors:
        return None
    size = decoded_bytes(payload.encoding, shape)
    return _Shared(
        message.source_id,
        rule.modality.value,
        route.value,
        screening.bundle_id,
        screening.calibration_id,
        screening.artefact,
        payload.encoding,
        json.dumps(shape),
        size,
        size if is_plain else 0,
        kind.has_vectors,
        rule,
    )


def _row(request: CheckedFields, message: sample_pb2.Sample, shared: _Shared) -> Row | None:
    """Return the row of a sample; None unless its own fields are clearly valid."""
    screening, payload, at = message.screening, message.payload, message.captured_at
    sample_id, origin, p_value, score = message.sample_id, message.origin, screening.p_value, screening.score
    nanos, data = at.nanos, payload.data
    size, captured_at_s = len(data), at.seconds + nanos / 1e9
    if (
        len(sample_id) != 16
        or sample_id[6] >> 4 != 7  # version and variant of a UUIDv7
        or sample_id[8] >> 6 != 2
        or len(origin) > MAX_TEXT_CHARACTERS
        or "\0" in origin
        or not 0.0 < p_value <= 1.0
        or not 0 <= nanos < 10**9
        or not EARLIEST_S <= captured_at_s <= LATEST_S
        or size > MAX_PAYLOAD_BYTES
        or payload.HasField("crop")
        or (shared.plain_bytes and (size != shared.plain_bytes or payload.HasField("crc32")))
    ):
        return None
    edge_map = _edge_map(screening.anomaly_map) if screening.HasField("anomaly_map") else _NO_MAP
    if edge_map is None:
        return None
    sample = (
        sample_id,
        request.device_id,
        request.received_at_s,
        shared.source_id,
        shared.modality,
        origin,
        captured_at_s,
        shared.route,
        score if math.isfinite(score) else None,
        p_value,
        screening.extrapolated,
        shared.bundle_id,
        shared.calibration_id,
        shared.artefact,
        request.traces is not None and _is_traced(message, request),
        size,
    )
    return sample, (shared.encoding, shared.shape, data, None, *edge_map), shared.decoded_bytes


def _edge_map(message: sample_pb2.AnomalyMap) -> tuple[int, int, bytes] | None:
    cells = message.height * message.width
    values = message.values
    return (message.height, message.width, values) if 0 < cells <= MAX_MAP_CELLS and cells == len(values) else None


def _problem(payload: sample_pb2.Payload, rule: BundleRule) -> str:
    """Return why a payload cannot be accepted, or an empty text."""
    kind = sample_type(rule.modality)
    try:
        if kind.has_vectors:
            kind.check_values(payload, rule.spec)  # decodes it, and so checks all that `check` does
        else:
            kind.check(payload)
    except SampleRejected as error:
        return str(error)
    except Exception as error:
        return _failure(error)
    return ""


def _failure(error: Exception) -> str:
    if count := _throttle.allow(type(error).__name__):
        _LOG.error("check_failed", error=f"{type(error).__name__}: {error}"[:MAX_TEXT_CHARACTERS], count=count)
    return f"the sample cannot be checked: {type(error).__name__}"
