"""Quick check of large requests whose samples are alike: plain readings that differ in few fields.

The samples of one source have the same bytes on the wire, apart from id, time, origin, score, p-value and readings. The
first sample of a layout is checked by itself (`cloud.service.sample_check`); the others are compared with it, all at
once. A request with a sample that is not clearly valid goes the usual way, which finds the reason.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from shared.wire import EARLIEST_S, LATEST_S, MAX_TEXT_CHARACTERS
from vedette.v1 import sample_pb2

LEAST_SAMPLES = 24  # of a request; the usual way is quicker for fewer
MAX_LAYOUTS = 1024  # lengths of samples that are remembered
MAX_LAYOUT_BYTES = 32 * 2**20  # of all remembered layouts; beyond either they are all forgotten
MAX_LAYOUTS_OF_LENGTH = 16
_VARINT, _EIGHT, _BYTES = 0, 1, 2  # wire types
_VARINT_BYTES = 5  # of seconds and nanoseconds
_MAX_SHIFT = 63  # of the last byte of a base-128 integer
_CHANGING, _FIXED, _CONTINUED = 0x00, 0xFF, 0x80  # bits of a byte that all samples share
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
_NEEDED = ("sample_id", "seconds", "p_value", "data")

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class AlikeSamples:
    """Valid samples of a request; `payload_bytes` is the size of all their readings, sent and decoded."""

    sample_ids: list[bytes]
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """Serialised sample that was valid, the bits that others must share with it, and the places of its other fields."""

    example: Bytes
    shared: Bytes
    places: dict[str, slice]

    def fits(self, samples: Bytes) -> NDArray[np.bool_]:
        """Return which of the samples (rows) differ from the example in the other fields only."""
        return np.asarray(~((samples ^ self.example) & self.shared).any(axis=1))

    def are_valid(self, samples: Bytes) -> bool:
        """Return whether the other fields of all samples are clearly valid."""
        ids, origin = samples[:, self.places["sample_id"]], samples[:, self.places.get("origin", slice(0))]
        p_values, readings = (self._column(samples, name) for name in ("p_value", "data"))
        seconds, nanos = (self._integers(samples, name) for name in ("seconds", "nanos"))
        return bool(
            (ids[:, 6] >> 4 == 7).all()  # version and variant of a UUIDv7
            and (ids[:, 8] >> 6 == 2).all()
            and ((origin > 0) & (origin < 0x80)).all()
            and ((p_values > 0.0) & (p_values <= 1.0)).all()
            and ((nanos >= 0) & (nanos < 10**9)).all()
            and ((seconds >= EARLIEST_S) & (seconds + 1 <= LATEST_S)).all()
            and np.isfinite(readings).all()
        )

    def _column(self, samples: Bytes, name: str) -> NDArray[np.floating]:
        return np.ascontiguousarray(samples[:, self.places[name]]).view("<f4" if name == "data" else "<f8")

    def _integers(self, samples: Bytes, name: str) -> NDArray[np.int64]:
        place = self.places.get(name, slice(0))
        digits = (samples[:, place] & 0x7F).astype(np.int64)
        return np.asarray((digits << (7 * np.arange(digits.shape[1]))).sum(axis=1))


class AlikeCheck:
    """Check of requests with many samples; it remembers the layouts that were valid. Threads may share it.

    `is_plain` returns whether a sample, given as message, is valid and holds plain readings.
    """

    def __init__(self, is_plain: Callable[[sample_pb2.Sample], bool]) -> None:
        self._is_plain = is_plain
        self._layouts: dict[int, tuple[_Layout, ...]] = {}
        self._layout_bytes = 0

    def check(self, data: bytes) -> AlikeSamples | None:
        """Return the samples of a serialised SubmitRequest if all are clearly valid and alike, otherwise None."""
        starts, groups = _samples_by_length(data)
        if len(starts) < LEAST_SAMPLES:
            return None
        ids, payload_bytes = np.empty((len(starts), 16), np.uint8), 0
        for length, places in groups.items():
            joined = b"".join([data[starts[place] : starts[place] + length] for place in places])
            left, left_places = np.frombuffer(joined, np.uint8).reshape(len(places), length), np.array(places)
            for layout in self._layouts_of(left):
                fits = layout.fits(left)
                alike = left[fits]
                if not layout.are_valid(alike):
                    return None
                ids[left_places[fits]] = alike[:, layout.places["sample_id"]]
                payload_bytes += len(alike) * (layout.places["data"].stop - layout.places["data"].start)
                left, left_places = left[~fits], left_places[~fits]
                if not len(left):
                    break
            if len(left):
                return None
        packed = ids.tobytes()
        sample_ids = [packed[start : start + 16] for start in range(0, len(packed), 16)]
        return AlikeSamples(sample_ids, payload_bytes)

    def _layouts_of(self, samples: Bytes) -> Iterator[_Layout]:
        """Yield the layouts that some of these samples have: known ones first, then new ones."""
        length, left = samples.shape[1], samples
        for layout in self._layouts.get(length, ()):
            if (fits := layout.fits(left)).any():
                yield layout
                left = left[~fits]
        while len(left) and (found := self._new_layout(left[0])) is not None:
            yield found
            left = left[~found.fits(left)]

    def _new_layout(self, sample: Bytes) -> _Layout | None:
        """Return the layout of a valid sample of plain readings; None for others."""
        data = sample.tobytes()
        try:
            message = sample_pb2.Sample.FromString(data)
        except DecodeError:
            return None
        if not self._is_plain(message) or not _is_canonical(message, data):
            return None
        places = dict(_places(data, 0, len(data), _SAMPLE))
        if any(name not in places for name in _NEEDED):
            return None
        shared = np.full(len(data), _FIXED, np.uint8)
        for name, place in places.items():
            if name in ("seconds", "nanos"):
                if place.stop - place.start > _VARINT_BYTES:
                    return None
                shared[place] = _CONTINUED
            else:
                shared[place] = _CHANGING
        if len(data[places.get("origin", slice(0))]) > MAX_TEXT_CHARACTERS:
            return None
        layout = _Layout(sample.copy(), shared, places)
        self._remember(layout)
        return layout

    def _remember(self, layout: _Layout) -> None:
        length = len(layout.example)
        self._layout_bytes += 2 * length
        if len(self._layouts) >= MAX_LAYOUTS or self._layout_bytes > MAX_LAYOUT_BYTES:
            self._layouts, self._layout_bytes = {}, 2 * length
        known = self._layouts.get(length, ())
        self._layouts = {**self._layouts, length: (*known, layout)[-MAX_LAYOUTS_OF_LENGTH:]}


def _samples_by_length(data: bytes) -> tuple[list[int], dict[int, list[int]]]:
    """Return where the samples of a serialised SubmitRequest start, and their places in it by their length.

    There are none in any other message, and in one that clearly has fewer than LEAST_SAMPLES.
    """
    starts, groups = list[int](), dict[int, list[int]]()
    position, end = 0, len(data)
    try:
        while position < end:
            if data[position] != 0x0A:  # field 1, length-delimited
                return [], {}
            length, start = data[position + 1], position + 2
            if length >= 0x80:
                more = data[start]
                if more < 0x80:
                    length, start = (length & 0x7F) | more << 7, start + 1
                else:
                    length, start = _varint(data, position + 1)
            position = start + length
            if not starts and position * LEAST_SAMPLES > 2 * end:  # few and large
                return [], {}
            if (places := groups.get(length)) is None:
                places = groups[length] = []
            places.append(len(starts))
            starts.append(start)
    except IndexError:
        return [], {}
    return (starts, groups) if position == end else ([], {})


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
