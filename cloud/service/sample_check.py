"""Check of the samples of a request against their bundles, before anything is stored.

All samples of a request share most fields, so each combination of these is checked once. The first pass looks at fields
and decodes nothing; the second looks at payloads, plain readings together. A sample that is not clearly valid is
checked again by itself, which gives the reason of its rejection.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cloud.service.bundle_rules import BundleRule, Rules, check_fit
from shared.errors import SampleRejected
from shared.logs import EventLog, Throttle
from shared.modalities import sample_type
from shared.modalities.base import MAX_PAYLOAD_BYTES, checked_shape
from shared.modalities.floats import raw_floats
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
MAX_TOGETHER_BYTES = 2**20  # of compressed readings that are decoded at once
_LOG = EventLog("detection")
_throttle = Throttle()


@dataclass(frozen=True, slots=True)
class _Shared:
    """Facts that follow from valid values of the fields that samples share.

    `plain_bytes`: size of the payload of plain readings; 0 for other encodings.
    """

    shape: tuple[int, ...]
    decoded_bytes: int
    plain_bytes: int
    is_readings: bool
    rule: BundleRule


@dataclass(slots=True)
class CheckedFields:
    """Result of the first pass over a request.

    `doubtful` are the places of samples that `check_sample` must look at. `plain` are the places of plain readings,
    `compressed` those of compressed ones, with shape and rule, and `others` those of other payloads, with rule.
    `unknown` are bundles without a rule.
    """

    messages: Sequence[sample_pb2.Sample] = ()  # empty where all samples are alike and valid
    rules: Rules = field(default_factory=dict)
    doubtful: set[int] = field(default_factory=set)
    plain: list[int] = field(default_factory=list)
    compressed: list[tuple[int, tuple[int, ...], BundleRule]] = field(default_factory=list)
    others: list[tuple[int, BundleRule]] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    sample_ids: list[bytes] = field(default_factory=list)
    payload_bytes: int = 0
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


def check_fields(messages: Sequence[sample_pb2.Sample], rules: Rules, known: SharedFields) -> CheckedFields:
    """Return which samples have fields that are clearly valid, without a look into payloads."""
    checked = CheckedFields(messages, rules)
    for place, message in enumerate(messages):
        screening, payload = message.screening, message.payload
        checked.sample_ids.append(message.sample_id)
        if len(payload.shape) > MAX_DIMENSIONS:  # before anything is computed from it: a product takes seconds
            checked.doubtful.add(place)
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
        checked.payload_bytes += (sent := len(payload.data))
        if shared is None or not _is_valid(message, sent, shared):
            checked.doubtful.add(place)
            size = decoded_bytes(payload.encoding, payload.shape)
            checked.decoded_bytes += size if size <= MAX_DECODED_BYTES else 0  # beyond: it is refused
            checked.readings_bytes += size
            continue
        checked.decoded_bytes += shared.decoded_bytes
        if shared.plain_bytes:
            checked.plain.append(place)
        elif shared.is_readings:
            checked.compressed.append((place, shared.shape, shared.rule))
            checked.readings_bytes += shared.decoded_bytes
        else:
            checked.others.append((place, shared.rule))
    return checked


def plain_readings(message: sample_pb2.Sample, rules: Rules, known: SharedFields) -> bool:
    """Return whether a sample is clearly valid, holds plain readings, and begins no trace."""
    checked = check_fields([message], rules, known)
    return bool(checked.plain) and not check_payloads(checked) and not message.traceparent


def check_payloads(checked: CheckedFields) -> dict[int, str]:
    """Return the samples that can never be accepted, by place, each with the reason. Blocking.

    Checks headers, lengths and checksums. Decodes readings and no pixels: the batcher decodes a payload once. A sample
    that turns out to be undecodable there gets an undecided verdict with the reason.
    """
    messages, others, readings = checked.messages, checked.others, dict[int, bytes]()
    doubtful = checked.doubtful | _readings(checked, readings)
    if checked.compressed and checked.readings_bytes > MAX_TOGETHER_BYTES:
        others = [*others, *((place, rule) for place, _, rule in checked.compressed)]
    if not np.isfinite(np.frombuffer(b"".join(readings.values()), "<f4")).all():
        doubtful |= {place for place, data in readings.items() if not np.isfinite(np.frombuffer(data, "<f4")).all()}
    reasons = {place: _problem(messages[place].payload, rule) for place, rule in others}
    reasons |= {place: check_sample(messages[place], checked.rules) for place in doubtful}
    return {place: reason for place, reason in reasons.items() if reason}


def _readings(checked: CheckedFields, readings: dict[int, bytes]) -> set[int]:
    """Add the values of plain readings, and of compressed ones if they are small; return the places of damaged ones."""
    for place in checked.plain:
        readings[place] = checked.messages[place].payload.data
    damaged = set[int]()
    for place, shape, _ in checked.compressed if checked.readings_bytes <= MAX_TOGETHER_BYTES else ():
        try:
            readings[place] = raw_floats(checked.messages[place].payload, shape)
        except SampleRejected:
            damaged.add(place)
    return damaged


def check_sample(message: sample_pb2.Sample, rules: Rules) -> str:
    """Return the reason why a sample can never be accepted, or an empty text. Blocking."""
    try:
        if (count := len(message.payload.shape)) > MAX_DIMENSIONS:
            raise SampleRejected(f"shape has {count} dimensions; no sample has more than {MAX_DIMENSIONS}")
        screened = message.screening
        texts = (message.source_id, message.origin, screened.bundle_id, screened.calibration_id, screened.artefact)
        if any("\0" in text for text in texts):
            raise SampleRejected("a text holds a NUL character")
        rule = check_fit(message, rules)
        sample, _ = undecoded_from_message(message)
        if sample.crop is None:
            sample_type(sample.modality).check_values(message.payload, rule.spec)
    except SampleRejected as error:
        return str(error)
    except Exception as error:  # otherwise the sample would stay in the spool and fail again
        return _failure(error)
    return ""


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
    return _Shared(shape, size, size if is_plain else 0, kind.has_vectors, rule)


def _is_valid(message: sample_pb2.Sample, sent: int, shared: _Shared) -> bool:
    """Return whether the fields of a sample that it shares with no other are clearly valid."""
    screening, at = message.screening, message.captured_at
    sample_id, origin, nanos = message.sample_id, message.origin, at.nanos
    return (
        len(sample_id) == 16
        and sample_id[6] >> 4 == 7  # version and variant of a UUIDv7
        and sample_id[8] >> 6 == 2
        and len(origin) <= MAX_TEXT_CHARACTERS
        and "\0" not in origin
        and 0.0 < screening.p_value <= 1.0
        and 0 <= nanos < 10**9
        and EARLIEST_S <= at.seconds + nanos / 1e9 <= LATEST_S
        and sent <= MAX_PAYLOAD_BYTES
        and not message.payload.HasField("crop")
        and (not shared.plain_bytes or (sent == shared.plain_bytes and not message.payload.HasField("crc32")))
        and (not screening.HasField("anomaly_map") or _is_map(screening.anomaly_map))
    )


def _is_map(message: sample_pb2.AnomalyMap) -> bool:
    cells = message.height * message.width
    return 0 < cells <= MAX_MAP_CELLS and cells == len(message.values)


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
