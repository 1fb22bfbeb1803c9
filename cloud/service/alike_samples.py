"""Quick check of requests whose samples are alike: plain readings that differ in few fields.

The samples of one source have the same bytes on the wire, apart from id, time, origin, score, p-value and readings. The
first sample of a layout is checked by itself (`cloud.service.sample_check`); its bytes become a regular expression that
the others must match, which costs less than to parse them. A request with a sample that is not clearly valid goes the
usual way, which finds the reason.
"""

import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from google.protobuf.message import DecodeError

from cloud.service.rate_limit import RateLimit
from shared.wire import EARLIEST_S, LATEST_S, MAX_TEXT_CHARACTERS
from vedette.v1 import sample_pb2

MAX_SAMPLE_BYTES = 4096
MAX_SHARED_BYTES = 512  # of a layout; an expression takes about ten bytes of memory for each
MAX_LAYOUTS = 16  # of a device
MAX_DEVICES = 512  # whose layouts are remembered
NEW_LAYOUTS_PER_MINUTE, NEW_LAYOUTS_AT_ONCE = 60, MAX_LAYOUTS  # of a device: a new one costs about a millisecond
_VARINT, _EIGHT, _BYTES = 0, 1, 2  # wire types
_VARINT_BYTES = 5  # of seconds and nanoseconds
_MAX_SHIFT = 63  # of the last byte of a base-128 integer
_SUBMITTED = b"\x0a"  # tag of a sample in a SubmitRequest
_FIELDS = sample_pb2.Sample.DESCRIPTOR.fields_by_name
_SAMPLE = {_FIELDS[name].number: name for name in ("sample_id", "captured_at", "origin", "payload", "screening")}
_INNER = {
    "captured_at": {1: "seconds", 2: "nanos"},
    "payload": {sample_pb2.Payload.DESCRIPTOR.fields_by_name["data"].number: "data"},
    "screening": {
        field.number: field.name
        for field in sample_pb2.Screening.DESCRIPTOR.fields
        if field.name in ("score", "p_value")
    },
}
_NEEDED = ("sample_id", "seconds", "data", "p_value")
_UUID7 = rb"(.{6}[\x70-\x7f].[\x80-\xbf].{7})"  # version and variant
# Groups of an expression: id, nanoseconds, readings, p-value.
_EXPRESSIONS: dict[str, Callable[[int], bytes]] = {
    "sample_id": lambda _: _UUID7,
    "seconds": lambda size: rb"[\x80-\xff]{%d}[\x00-\x7f]" % (size - 1),  # always in range, see below
    "nanos": lambda size: rb"([\x80-\xff]{%d}[\x00-\x7f])" % (size - 1),
    "origin": lambda size: rb"[\x01-\x7f]{%d}" % size,
    "data": lambda size: b"(.{%d})" % size,
    "score": lambda size: b".{%d}" % size,
    "p_value": lambda size: b"(.{%d})" % size,
}
assert EARLIEST_S <= 0
assert 2 ** (7 * _VARINT_BYTES) < LATEST_S
_NANOS_END = bytes((10**9 >> shift) & 0x7F | (0x80 if shift < 28 else 0) for shift in (28, 21, 14, 7, 0))

Found: TypeAlias = tuple[bytes, bytes, bytes, bytes]


@dataclass(frozen=True, slots=True)
class AlikeSamples:
    """Valid samples of a request; `payload_bytes` is the size of all their readings, sent and decoded."""

    sample_ids: Sequence[bytes]
    payload_bytes: int


class AlikeCheck:
    """Check of requests against the layouts of earlier samples of the same device. Threads may share it.

    `is_plain` returns whether a sample, given as message, is valid and holds plain readings.
    """

    def __init__(self, is_plain: Callable[[sample_pb2.Sample], bool]) -> None:
        self._is_plain = is_plain
        self._layouts: OrderedDict[str, tuple[re.Pattern[bytes], ...]] = OrderedDict()
        self._new_layouts = RateLimit(NEW_LAYOUTS_PER_MINUTE, NEW_LAYOUTS_AT_ONCE)

    def check(self, device_id: str, data: bytes) -> AlikeSamples | None:
        """Return the samples of a serialised SubmitRequest if all are clearly valid and alike, otherwise None."""
        layouts = self._layouts.get(device_id, ())
        layout = layouts[0] if layouts else None
        found, position, end = list[Any](), 0, len(data)
        while position < end:
            sample = layout.match(data, position) if layout is not None else None
            if sample is None:
                layout = self._known_layout(device_id, data, position) or self._new_layout(device_id, data, position)
                if layout is None:
                    return None
                continue
            found.append(sample.groups())
            position = sample.end()
        return _valid(found) if found else None

    def _known_layout(self, device_id: str, data: bytes, position: int) -> re.Pattern[bytes] | None:
        """Return the layout of the sample at `position`, if the device has sent another one of it."""
        for layout in self._layouts.get(device_id, ()):
            if layout.match(data, position) is not None:
                return layout
        return None

    def _new_layout(self, device_id: str, data: bytes, position: int) -> re.Pattern[bytes] | None:
        """Return and remember the layout of a valid sample of plain readings; None for others."""
        start, sample = _sample_at(data, position)
        if not sample or self._new_layouts.wait_s(device_id) > 0:
            return None
        try:
            message = sample_pb2.Sample.FromString(sample)
        except DecodeError:
            return None
        if not self._is_plain(message) or not _is_canonical(message, sample):
            return None
        expression = _expression(sample)
        if expression is None:
            return None
        layout = re.compile(re.escape(data[position:start]) + expression, re.DOTALL)
        if layout.match(data, position) is None:
            return None
        self._remember(device_id, layout)
        return layout

    def _remember(self, device_id: str, layout: re.Pattern[bytes]) -> None:
        self._layouts[device_id] = (layout, *self._layouts.get(device_id, ()))[:MAX_LAYOUTS]
        self._layouts.move_to_end(device_id)
        if len(self._layouts) > MAX_DEVICES:
            self._layouts.popitem(last=False)


def _valid(found: Sequence[Found]) -> AlikeSamples | None:
    """Return the samples with these fields if all values are in range."""
    sample_ids, nanos, readings, p_values = zip(*found, strict=True)
    if not all(0.0 < p_value <= 1.0 for p_value in struct.unpack(f"<{len(found)}d", b"".join(p_values))):
        return None
    # Base-128 integers of one length are in the order of their bytes from the last to the first.
    if not all(value[::-1] < _NANOS_END for value in nanos if len(value) >= _VARINT_BYTES):
        return None
    joined = b"".join(readings)
    if not np.isfinite(np.frombuffer(joined, "<f4")).all():
        return None
    return AlikeSamples(sample_ids, len(joined))


def _sample_at(data: bytes, position: int) -> tuple[int, bytes]:
    """Return start and bytes of the sample at a place of a SubmitRequest; none if it is large or cut."""
    try:
        length, start = _varint(data, position + 1) if data[position : position + 1] == _SUBMITTED else (0, 0)
    except IndexError:
        return position, b""
    sample = data[start : start + length] if length <= MAX_SAMPLE_BYTES else b""
    return start, sample if len(sample) == length else b""


def _expression(sample: bytes) -> bytes | None:
    """Return the regular expression of samples that share their layout with a valid, canonical one."""
    places = sorted(_places(sample, 0, len(sample), _SAMPLE), key=lambda item: item[1].start)
    sizes = {name: place.stop - place.start for name, place in places}
    if any(name not in sizes for name in _NEEDED) or sizes.get("origin", 0) > MAX_TEXT_CHARACTERS:
        return None
    if max(sizes["seconds"], sizes.get("nanos", 0)) > _VARINT_BYTES:
        return None
    if len(sample) - sum(sizes.values()) > MAX_SHARED_BYTES:
        return None
    parts, position = list[bytes](), 0
    for name, place in places:
        parts += re.escape(sample[position : place.start]), _EXPRESSIONS[name](sizes[name])
        if name == "seconds" and "nanos" not in sizes:
            parts.append(b"()")
        position = place.stop
    return b"".join([*parts, re.escape(sample[position:])])


def _is_canonical(message: sample_pb2.Sample, data: bytes) -> bool:
    """Return whether `data` is what the library writes for the message: known fields only, each once, in order.

    `_places` relies on it. Otherwise the bytes of an unknown field could cover those of a field that was checked.
    """
    known: Any = sample_pb2.Sample()  # types-protobuf lacks a method of all messages
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return bool(known.SerializeToString() == data)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a base-128 integer and the place after it; raises IndexError for one without an end."""
    value = shift = 0
    while True:
        if shift > _MAX_SHIFT:
            raise IndexError(position)
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _places(data: bytes, position: int, end: int, names: dict[int, str]) -> Iterator[tuple[str, slice]]:
    """Yield the places of the fields that change, in a canonical message: a field is there once."""
    while position < end:
        tag, position = _varint(data, position)
        name, kind = names.get(tag >> 3, ""), tag & 7
        start = position
        if kind == _VARINT:
            _, position = _varint(data, position)
        elif kind == _EIGHT:
            position += 8
        elif kind == _BYTES:
            length, start = _varint(data, position)
            position = start + length
        else:
            position += 4
        if name in _INNER:
            yield from _places(data, start, position, _INNER[name])
        elif name:
            yield name, slice(start, position)
