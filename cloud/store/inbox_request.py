"""Requests of the inbox, as ingest and the back ends exchange them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from cloud.store.sample_rows import Row, rows_of
from cloud.store.segments import SegmentPlace, SegmentValue, places_from_bytes, places_to_bytes
from shared.logs import EventLog
from vedette.v1 import detection_pb2

_LOG = EventLog("store")

INBOX_COLUMNS = (
    "first_sample_id",
    "device_id",
    "received_at_s",
    "samples",
    "decoded_bytes",
    "data",
    "traced",
    "segment_id",
    "segment_places",
)
PACKED_COLUMNS = (
    "device_id",
    "received_at_s",
    "data",
    "traced",
    "segment_id",
    "segment_places",
    "samples",
    "decoded_bytes",
)
Packed: TypeAlias = tuple[str, float, bytes, bytes, bytes | None, bytes | None, int, int]
"""Values of PACKED_COLUMNS: what is needed to make rows of a request."""

Owners: TypeAlias = Mapping[bytes, str]
"""Device that has sent each known sample, by sample id."""


@dataclass(frozen=True, slots=True)
class InboxRequest:
    """Accepted request of a device.

    `data` is a serialised SubmitRequest with the samples of `sample_ids` in order, at least one. `decoded_bytes` is the
    size of their values after decoding. `traced`: ids of samples whose way to the verdict is traced. `outside` has the
    payload of each sample that is left out of `data`, None for the others; `places` has their places once a segment
    holds them.
    """

    device_id: str
    received_at_s: float
    decoded_bytes: int
    sample_ids: Sequence[bytes]
    data: bytes
    traced: Sequence[bytes] = ()
    outside: Sequence[SegmentValue | None] = ()
    places: Sequence[SegmentPlace | None] = ()

    @property
    def values(self) -> tuple[Any, ...]:
        """Values of INBOX_COLUMNS."""
        count, traced = len(self.sample_ids), b"".join(self.traced)
        segment_id = self.segment_id
        places = places_to_bytes(self.places) if segment_id is not None else None
        first = self.sample_ids[0]
        stored = first, self.device_id, self.received_at_s, count, self.decoded_bytes, self.data, traced
        return *stored, segment_id, places

    @property
    def segment_id(self) -> bytes | None:
        """Segment with payloads of the request; None if there is none."""
        return next((place.segment_id for place in self.places if place), None)

    def placed(self, places: Iterator[SegmentPlace]) -> "InboxRequest":
        """Return the request with the next places as those of its payloads outside."""
        found = [next(places) if payload else None for payload in self.outside]
        return replace(self, outside=(), places=found)


@dataclass(frozen=True, slots=True)
class Doubles:
    """Samples of an unpacked request that became no rows: known ones, or those of a damaged request.

    `foreign`: those that another device had sent.
    """

    device_id: str
    samples: int
    decoded_bytes: int
    foreign: int


def ids_in(data: bytes) -> list[bytes]:
    """Return the ids of the samples in a serialised SubmitRequest."""
    return [sample.sample_id for sample in detection_pb2.SubmitRequest.FromString(data).samples]


class Unpacking:
    """Rows of requests that leave the inbox."""

    def __init__(self, requests: Sequence[Packed]) -> None:
        self._requests = [(request[0], _rows(*request[:6])) for request in requests]
        self._damaged = [
            Doubles(request[0], request[6], request[7], 0)
            for request, (_, rows) in zip(requests, self._requests, strict=True)
            if not rows
        ]
        self.rows: list[Row] = [row for _, rows in self._requests for row in rows]

    def doubles(self, old: Mapping[int, str]) -> list[Doubles]:
        """Return what was not inserted, given the owner of each old sample by its place in `rows`."""
        return [*self._damaged, *(self._doubles(old) if old else ())]

    def _doubles(self, old: Mapping[int, str]) -> Iterator[Doubles]:
        start = 0
        for device_id, rows in self._requests:
            found = {place: old[start + place] for place in range(len(rows)) if start + place in old}
            if found:
                foreign = sum(owner != device_id for owner in found.values())
                yield Doubles(device_id, len(found), sum(rows[place][2] for place in found), foreign)
            start += len(rows)


def _rows(
    device_id: str, received_at_s: float, data: bytes, traced: bytes, segment_id: bytes | None, places: bytes | None
) -> list[Row]:
    """Return the rows of a request; none if none can be made of it, so that it does not hold up the others."""
    try:
        ids = {traced[at : at + 16] for at in range(0, len(traced), 16)}
        outside = places_from_bytes(segment_id, places) if segment_id is not None and places is not None else ()
        return rows_of(device_id, received_at_s, data, ids, outside)
    except Exception as error:  # damaged on the disk, or accepted by a check that has a fault
        _LOG.error("request_damaged", device_id=device_id, bytes=len(data), error=error)
        return []
