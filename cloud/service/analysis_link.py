"""Link between the service and its analysis process: framed protobuf messages over a socket pair.

A frame is the length of its message, four bytes, and the message. Both ends refuse frames beyond MAX_FRAME_BYTES.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence
from uuid import UUID

from google.protobuf.message import DecodeError, Message
from pydantic import BaseModel

from cloud.analysis_settings import AnalysisSettings
from cloud.service.analysis_port import DeviceLoad, JudgedSamples
from cloud.service.event_messages import PushedEvent
from cloud.settings import StoreLocation
from cloud.store.inbox_request import Doubles
from shared.errors import ConnectionFailedError
from vedette.v1 import analysis_pb2

MAX_FRAME_BYTES = 16 * 2**20
EVENT_BYTES = 2**20  # of the events of one report; one event has less
MAX_UNSENT_BYTES = 8 * 2**20  # beyond it, reports go without events, which streams then read from the store
ALIVE_S = 1.0
_LENGTH_BYTES = 4


class AnalysisStart(BaseModel):
    """Options of an analysis process; `trusted_key` is an Ed25519 public key as hexadecimal digits.

    `claimant`: name under which it claims samples, the same for its successors, which so go on with its samples.
    `takes_events`: whether reports of judged samples shall hold their events. `alone`, `condemned`: samples that may
    end it, and that have: see `cloud.serving.isolation`.
    """

    settings: AnalysisSettings
    location: StoreLocation
    trusted_key: str
    claimant: str
    tracing_endpoint: str
    takes_events: bool = True
    alone: set[UUID] = set()
    condemned: list[UUID] = []


class AnalysisLink:
    """One end of the link; used on the event loop only."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def over(cls, end: socket.socket) -> "AnalysisLink":
        """Return the link over a connected socket, which it closes."""
        end.setblocking(False)
        return cls(*await asyncio.open_connection(sock=end))

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for the other end to read."""
        return self._writer.transport.get_write_buffer_size()

    def send(self, message: Message) -> None:
        """Send a message; it is dropped if the other end has gone."""
        data = message.SerializeToString()
        if not self._writer.is_closing():
            self._writer.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)

    async def receive(self) -> bytes | None:
        """Return the next message; None if the other end has gone. Raises ConnectionFailedError for a large frame."""
        try:
            size = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
            if size > MAX_FRAME_BYTES:
                raise ConnectionFailedError(f"it sent a frame of {size} bytes; the limit is {MAX_FRAME_BYTES}")
            return await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError):
            return None

    def close(self) -> None:
        """Close the link: the other end sees the end of its input."""
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self._writer.close()


def parsed_report(data: bytes) -> analysis_pb2.AnalysisReport:
    """Return a report; raises ConnectionFailedError if it is none."""
    try:
        return analysis_pb2.AnalysisReport.FromString(data)
    except DecodeError:
        raise ConnectionFailedError("it sent a message that is no report") from None


def judged_reports(judged: JudgedSamples, *, with_events: bool) -> Iterator[analysis_pb2.AnalysisReport]:
    """Yield reports of judged samples, bounded in bytes."""
    report = analysis_pb2.AnalysisReport()
    report.judged.seconds = judged.seconds
    for load in judged.loads:
        report.judged.loads.add(device_id=load.device_id, samples=load.samples, decoded_bytes=load.decoded_bytes)
    size = 0
    for event in judged.events if with_events else ():
        if size > EVENT_BYTES:
            yield report
            report, size = analysis_pb2.AnalysisReport(judged=analysis_pb2.JudgedSamples()), 0
        report.judged.events.add(device_id=event.device_id, cursor=event.cursor, event=event.data)
        size += len(event.data)
    yield report


def judged_of(message: analysis_pb2.JudgedSamples) -> JudgedSamples:
    """Return the judged samples of a report."""
    loads = [DeviceLoad(load.device_id, load.samples, load.decoded_bytes) for load in message.loads]
    events = [PushedEvent(event.device_id, event.cursor, event.event) for event in message.events]
    return JudgedSamples(loads, events, message.seconds)


def doubles_report(doubles: Sequence[Doubles]) -> analysis_pb2.AnalysisReport:
    """Return the report of samples that were sent twice."""
    report = analysis_pb2.AnalysisReport(doubles=analysis_pb2.DoubleSamples())
    for each in doubles:
        report.doubles.loads.add(
            device_id=each.device_id, samples=each.samples, decoded_bytes=each.decoded_bytes, foreign=each.foreign
        )
    return report


def doubles_of(message: analysis_pb2.DoubleSamples) -> list[Doubles]:
    """Return the samples that were sent twice."""
    return [Doubles(load.device_id, load.samples, load.decoded_bytes, load.foreign) for load in message.loads]
