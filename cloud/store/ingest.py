"""Ingest of samples: many requests in one transaction; a sample that is sent again changes nothing."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import select

from cloud.store.engine import Store
from cloud.store.inbox_request import InboxRequest
from cloud.store.schema import inbox
from cloud.store.segments import LEAST_SEGMENT_BYTES, LEAST_VALUE_BYTES, SegmentValue
from shared.modalities.base import has_checked_crc
from shared.samples import Sample, Screening
from shared.wire import decoded_bytes, screened_message
from vedette.v1 import detection_pb2, sample_pb2

T = TypeVar("T")
MAX_PARAMETERS = 500  # of one IN (...)


class IngestStatus(StrEnum):
    """Result of ingesting one sample; FOREIGN: another device has sent its id."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    FOREIGN = "foreign"


Known = Mapping[int, IngestStatus]
"""Samples of a request that are not new, by place; empty if all were stored."""


@dataclass(frozen=True, slots=True)
class Received:
    """Sample that a device has sent; its payload is stored as received."""

    sample: Sample
    screening: Screening
    payload: sample_pb2.Payload
    traced: bool = False


def inbox_request(
    device_id: str,
    received_at_s: float,
    messages: Sequence[sample_pb2.Sample],
    traced: Sequence[bytes] = (),
    *,
    takes_payloads: bool = False,
) -> InboxRequest:
    """Return the request of checked samples; `traced` are ids.

    `takes_payloads`: large payloads are taken out of the messages, to be written to a segment.
    """
    sizes = [decoded_bytes(message.payload.encoding, message.payload.shape) for message in messages]
    ids = [message.sample_id for message in messages]
    outside = _taken_payloads(messages) if takes_payloads else ()
    return InboxRequest(device_id, received_at_s, sum(sizes), ids, serialised(messages), traced, outside)


def without(request: InboxRequest, left_out: Collection[int]) -> InboxRequest:
    """Return a request without the samples at these places."""
    messages = detection_pb2.SubmitRequest.FromString(request.data).samples
    kept = [place for place in range(len(messages)) if place not in left_out]
    left = inbox_request(request.device_id, request.received_at_s, [messages[place] for place in kept], request.traced)
    outside = [request.outside[place] for place in kept] if request.outside else ()
    places = [request.places[place] for place in kept] if request.places else ()
    return replace(left, outside=outside, places=places)


def holds_large_payloads(messages: Sequence[sample_pb2.Sample]) -> bool:
    """Return whether payloads of these samples leave the database."""
    sizes = [size for message in messages if (size := message.payload.ByteSize()) >= LEAST_VALUE_BYTES]
    return sum(sizes) >= LEAST_SEGMENT_BYTES


def _taken_payloads(messages: Sequence[sample_pb2.Sample]) -> list[SegmentValue | None]:
    """Take the large payloads out of checked messages; return the payload of each, None for those that stay."""
    taken: list[SegmentValue | None] = []
    for message in messages:
        data = message.payload.data  # a copy each time
        if len(data) >= LEAST_VALUE_BYTES:
            message.payload.ClearField("data")
            taken.append(SegmentValue(data, message.payload.crc32 if has_checked_crc(message.payload) else None))
        else:
            taken.append(None)
    return taken


def serialised(messages: Sequence[sample_pb2.Sample]) -> bytes:
    """Return a serialised SubmitRequest of these samples, without unknown fields."""
    request: Any = detection_pb2.SubmitRequest(samples=messages)  # the stubs lack the next method
    request.DiscardUnknownFields()
    return bytes(request.SerializeToString())


async def store_samples(store: Store, device_id: str, received: Sequence[Received], received_at_s: float) -> None:
    """Store new samples durably as one request and unpack it at once.

    Raises StorageError.
    """
    messages = [screened_message(item.sample, item.screening, item.payload) for item in received]
    traced = [item.sample.sample_id.bytes for item in received if item.traced]
    takes_payloads = store.segments.are_used and holds_large_payloads(messages)
    request = inbox_request(device_id, received_at_s, messages, traced, takes_payloads=takes_payloads)
    if any(request.outside):
        request = request.placed(iter(await store.segments.write([value for value in request.outside if value])))
    await store.append_requests([request])
    query = select(inbox.c.number).where(inbox.c.first_sample_id == request.sample_ids[0])
    async with store.reading() as connection:
        numbers = (await connection.execute(query)).scalars().all()
    await store.unpack(numbers)


def slices(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the values in slices that fit into one IN (...)."""
    for start in range(0, len(values), MAX_PARAMETERS):
        yield values[start : start + MAX_PARAMETERS]
