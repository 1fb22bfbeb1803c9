"""Queue of samples to judge, and their verdicts.

The store itself is the queue: a sample that has left the inbox waits until the transaction that writes its verdict. A
process that dies in between loses nothing; the next one continues.
"""

import functools
import math
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json
from sqlalchemy import CTE, Integer, Select, bindparam, false, func, select, true

from cloud.store import claims
from cloud.store.engine import Store
from cloud.store.events import StoredEvent, WrittenEvent
from cloud.store.inbox import inbox_backlog
from cloud.store.map_places import MapPlaces
from cloud.store.sample_keys import may_wait
from cloud.store.schema import payloads, samples
from cloud.store.segments import NO_PLACE
from cloud.store.verdict_columns import MAX_REASON_CHARACTERS, contributions_to_json, opinions_to_json
from cloud.store.verdict_rows import NewVerdict
from shared.errors import RefusedRowError
from shared.modality import Modality
from shared.samples import Route, Verdict, p_value_to_column
from shared.wire import decoded_bytes

DEVICE_TURN_BYTES = 64 * 2**20
_QUEUE_COLUMNS = (
    "number",
    "sample_id",
    "device_id",
    "source_id",
    "modality",
    "edge_bundle_id",
    "received_at_s",
    "payload_bytes",
    "route",
    "traced",
)
SAMPLE_COLUMNS = tuple(samples.c[name] for name in _QUEUE_COLUMNS)
_MODALITIES = {modality.value: modality for modality in Modality}
_ROUTES = {route.value: route for route in Route}


@dataclass(frozen=True, slots=True)
class WaitingSample:
    """Sample that waits for its verdict; `edge_bundle_id` is the bundle that screened it on the device."""

    number: int
    sample_id: uuid.UUID
    device_id: str
    source_id: str
    modality: Modality
    edge_bundle_id: str
    received_at_s: float
    payload_bytes: int
    route: Route
    decoded_bytes: int = 0
    traced: bool = False


@dataclass(frozen=True, slots=True)
class Backlog:
    """Samples that wait for a verdict: their number, and the bytes that they decode to, by device."""

    by_device: dict[str, int]
    decoded_bytes: dict[str, int]

    @property
    def total(self) -> int:
        """Number of samples of all devices."""
        return sum(self.by_device.values())


async def waiting_samples(store: Store, limit: int, without: Collection[int] = ()) -> list[WaitingSample]:
    """Return the next samples to judge, oldest first per device, devices in turn: none delays the others.

    `without`: numbers of samples that are left out. A device gets an equal share of `limit`, and at most
    DEVICE_TURN_BYTES of decoded values unless its first sample alone has more. The cost depends on `limit` and the
    number of devices, not on the backlog.
    """
    async with store.reading() as connection:
        dialect = connection.dialect.name
        devices = (await connection.execute(_number_of_devices(dialect))).scalar_one()
        if not devices:
            return []
        query = _next_of_each_device(store.claimant, dialect)
        given = {"share": math.ceil(limit / devices), "without": sorted(without)}
        rows = (await connection.execute(query, given)).all()
    queues: dict[str, list[WaitingSample]] = {}
    for row in rows:
        waiting = _waiting_sample(row)
        queues.setdefault(waiting.device_id, []).append(waiting)
    turns = [(turn, waiting) for queue in queues.values() for turn, waiting in enumerate(_affordable(queue))]
    turns.sort(key=lambda item: (item[0], item[1].number))
    chosen = [waiting for _, waiting in turns[:limit]]
    own = await claims.take(store, [waiting.number for waiting in chosen])
    return [waiting for waiting in chosen if waiting.number in own]


# Building a query takes longer than running it on a short queue.
@functools.cache
def _number_of_devices(dialect: str) -> Select[Any]:
    """Return the query for the number of devices with waiting samples."""
    return select(func.count()).select_from(_waiting_devices(dialect))


def _waiting_devices(dialect: str) -> CTE:
    """Return the devices with waiting samples: one look into the index for each, however many wait."""
    waits = (samples.c.judged == false(), *may_wait(dialect, samples.c.number))
    first = select(func.min(samples.c.device_id).label("device_id")).where(*waits).cte("queues", recursive=True)
    after = select(func.min(samples.c.device_id)).where(*waits, samples.c.device_id > first.c.device_id)
    every = first.union_all(select(after.scalar_subquery()).where(first.c.device_id.is_not(None)))
    return select(every.c.device_id).where(every.c.device_id.is_not(None)).cte("waiting_devices")


@functools.cache
def _next_of_each_device(claimant: str, dialect: str) -> Select[Any]:
    """Return the query for the oldest waiting samples of each device.

    Its parameters are `share`, the largest number for each device, and `without`, numbers of samples to leave out.
    SQLite knows no LATERAL, and PostgreSQL would run a subquery after IN for each pair of a device and a sample.
    """
    device = _waiting_devices(dialect)
    queue = samples.alias("queue")
    free = (*may_wait(dialect, queue.c.number), *claims.is_free(claimant, queue.c.number))
    counted = queue.c.number.not_in(bindparam("without", expanding=True))
    oldest = (
        select(queue.c.number)
        .where(queue.c.device_id == device.c.device_id, queue.c.judged == false(), *free, counted)
        .order_by(queue.c.number)
        .limit(bindparam("share", type_=Integer))
        .correlate(device)
    )
    if dialect == "postgresql":
        numbers = oldest.lateral()
        found = device.join(numbers, true()).join(samples, samples.c.number == numbers.c.number)
    else:
        found = device.join(samples, samples.c.number.in_(oldest))
    return (
        select(*SAMPLE_COLUMNS, payloads.c.encoding, payloads.c.shape)
        .select_from(found)
        .outerjoin(payloads, payloads.c.number == samples.c.number)
        .order_by(samples.c.number)
    )


def sample_of_row(row: Any) -> WaitingSample:
    """Return the sample in a row of SAMPLE_COLUMNS, judged or not; its `decoded_bytes` are not known and 0."""
    return _waiting_sample((*row, None, None))


def _waiting_sample(row: Any) -> WaitingSample:
    number, sample_id, device_id, source_id, modality, edge_bundle_id, received_at_s, size, route, traced, *form = row
    encoding, shape = form
    return WaitingSample(
        number,
        uuid.UUID(bytes=sample_id),
        device_id,
        source_id,
        _MODALITIES[modality],
        edge_bundle_id,
        received_at_s,
        size,
        _ROUTES[route],
        decoded_bytes(encoding, shape) if shape else 0,
        traced,
    )


def _affordable(queue: Sequence[WaitingSample]) -> Iterator[WaitingSample]:
    """Yield the first samples of a device up to DEVICE_TURN_BYTES of decoded values, at least one."""
    size = 0
    for position, waiting in enumerate(queue):
        size += waiting.decoded_bytes
        if position and size > DEVICE_TURN_BYTES:
            return
        yield waiting


async def backlog(store: Store) -> Backlog:
    """Return the samples that wait now, those in the inbox too."""
    query = (
        select(samples.c.device_id, payloads.c.encoding, payloads.c.shape)
        .outerjoin(payloads, payloads.c.number == samples.c.number)
        .where(samples.c.judged == false())
    )
    by_device, decoded = dict[str, int](), dict[str, int]()
    async with store.reading() as connection:
        async for device_id, encoding, shape in await connection.stream(query):
            by_device[device_id] = by_device.get(device_id, 0) + 1
            decoded[device_id] = decoded.get(device_id, 0) + (decoded_bytes(encoding, shape) if shape else 0)
        for device_id, count, size in await inbox_backlog(connection):
            by_device[device_id] = by_device.get(device_id, 0) + count
            decoded[device_id] = decoded.get(device_id, 0) + size
    return Backlog(by_device, decoded)


async def store_verdicts(
    store: Store, judged: Sequence[tuple[WaitingSample, Verdict]], places: MapPlaces | None = None
) -> list[WrittenEvent]:
    """Store verdicts and their events, and remove the samples from the queue, in one transaction.

    A sample that waits no more is left out: it was removed, or another process has judged it. A verdict without
    `judged_at_s` gets the time of this transaction, so that none is stored long after it. Large maps are in a segment
    first; give `places` to each attempt to store the same verdicts, so that they are written once. Returns the events
    in the order of their cursors. Raises RefusedRowError if the store does not take a value, StorageError.
    """
    if not judged:
        return []
    rows = [_new_verdict(waiting, verdict) for waiting, verdict in judged]
    written = await store.add_verdicts(await (places or MapPlaces()).add_to(store, rows))
    found = [
        WrittenEvent(waiting.device_id, StoredEvent(cursor, _complete(verdict, written.at_s)))
        for waiting, verdict in judged
        if (cursor := written.cursors.get(waiting.number)) is not None
    ]
    return sorted(found, key=lambda item: item.event.cursor)


def _complete(verdict: Verdict, now_s: float) -> Verdict:
    """Return the verdict as it was stored: with its time and a short reason."""
    reason = verdict.reason[:MAX_REASON_CHARACTERS]
    return replace(verdict, judged_at_s=verdict.judged_at_s or now_s, reason=reason)


def _new_verdict(waiting: WaitingSample, verdict: Verdict) -> NewVerdict:
    return NewVerdict(
        (
            waiting.number,
            verdict.judged_at_s,
            waiting.device_id,
            waiting.source_id,
            waiting.modality.value,
            waiting.route.value,
            verdict.decision.value,
            p_value_to_column(verdict.p_value),
            verdict.extrapolated,
            verdict.bundle_id,
            verdict.reason[:MAX_REASON_CHARACTERS],
            _json_text(opinions_to_json(verdict.opinions)),
            _json_text(contributions_to_json(verdict.contributions)),
        ),
        None if verdict.anomaly_map is None else _map_values(waiting.number, verdict.anomaly_map),
    )


def _json_text(values: object) -> str:
    """Return values as JSON; raises RefusedRowError for what JSON cannot hold."""
    try:
        return to_json(values).decode()
    except ValueError as error:  # also the base of pydantic's error of serialisation
        raise RefusedRowError(f"The values of a verdict cannot be written as JSON ({error}).") from error


def _map_values(number: int, anomaly_map: NDArray[np.uint8]) -> tuple[Any, ...]:
    height, width = anomaly_map.shape
    return number, height, width, anomaly_map.tobytes(), *NO_PLACE
