"""Group commit: requests that arrive while a transaction commits are written together by the next one."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from cloud.store.engine import Store
from cloud.store.inbox_request import InboxRequest, Owners
from cloud.store.ingest import IngestStatus, Known, without
from cloud.store.segment_queue import SegmentQueue
from cloud.store.segments import is_settled
from shared.errors import StorageError, StoreBusyError

MAX_REQUESTS = 512  # of one transaction
MAX_BYTES = 32 * 2**20  # of one transaction, unless a request alone has more
MAX_GATHER_TURNS = 8  # of the event loop, in which further requests may join a transaction
MAX_REMEMBERED = 16_384  # ids of stored samples; the memory holds one to two times as many
_ALL_STORED: Known = {}


@dataclass(slots=True, eq=False)
class _Waiting:
    """Request that waits for its transaction; `places`: those of its samples in the request that the caller gave."""

    request: InboxRequest
    done: "asyncio.Future[Known]"
    known: dict[int, IngestStatus] = field(default_factory=dict)
    places: Sequence[int] | None = None


class GroupCommit:
    """Writer of the samples of all requests; used on the event loop only.

    Large payloads are written to a segment first; requests without any never wait for that.

    A transaction that fails is repeated for each of its requests alone, so that one request cannot fail others.
    Samples that are sent again are recognised by a memory of the last ids, and complete requests by the store. A sample
    that is not is stored twice in the inbox, and leaves it as one row.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._segments = store, SegmentQueue(store.segments)
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None
        self._remembered: dict[bytes, str] = {}  # device by sample id
        self._before: dict[bytes, str] = {}  # the same of the time before

    def store(self, request: InboxRequest) -> "asyncio.Future[Known]":
        """Return the samples of the request that were known, once the others are on disk.

        The future raises StorageError if nothing of the request was stored. Cancelling it does not stop the writing.
        """
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        if self._may_hold_known(request.sample_ids):
            self._leave_out(waiting, self._owners(request.sample_ids))
        if any(waiting.request.outside):
            placing = self._segments.place(waiting.request)
            placing.add_done_callback(partial(self._enqueue_placed, waiting))
        else:
            self._enqueue([waiting])
        return waiting.done

    def _enqueue_placed(self, waiting: _Waiting, placing: "asyncio.Future[InboxRequest]") -> None:
        if placing.cancelled():
            _fail([waiting], StorageError("The payloads were not stored: the service ends."))
        elif isinstance(error := placing.exception(), StorageError):
            _fail([waiting], error)
        else:
            waiting.request = placing.result()
            self._enqueue([waiting])

    def _may_hold_known(self, sample_ids: Sequence[bytes]) -> bool:
        """Return whether a sample of a request is remembered, or is in it twice."""
        different = set(sample_ids)
        is_new = self._remembered.keys().isdisjoint(different) and self._before.keys().isdisjoint(different)
        return not is_new or len(different) < len(sample_ids)

    def _owners(self, sample_ids: Sequence[bytes]) -> Owners:
        """Return the owners of the samples that are remembered."""
        both = [(sample_id, self._remembered.get(sample_id) or self._before.get(sample_id)) for sample_id in sample_ids]
        return {sample_id: owner for sample_id, owner in both if owner}

    def _enqueue(self, several: Iterable[_Waiting]) -> None:
        for waiting in several:
            if waiting.request.sample_ids:
                self._waiting.append(waiting)
            elif not waiting.done.done():
                waiting.done.set_result(waiting.known)
        if self._waiting and self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                await self._write(self._next_group())
        finally:
            self._task = None

    async def _gather(self) -> None:
        """Let requests join that the event loop has received already, as long as each of its turns brings one.

        A transaction costs about the same for one request as for many, and a turn a few microseconds.
        """
        for _ in range(MAX_GATHER_TURNS):
            count = len(self._waiting)
            await asyncio.sleep(0)
            if len(self._waiting) == count:
                break

    def _next_group(self) -> list[_Waiting]:
        """Remove and return the requests of the next transaction, in the order of their arrival."""
        size = count = 0
        for waiting in self._waiting[:MAX_REQUESTS]:
            size += len(waiting.request.data)
            if count and size > MAX_BYTES:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _write(self, group: Sequence[_Waiting]) -> None:
        # The store checks it again under its lock; here one late request does not fail a transaction of all.
        if late := [waiting for waiting in group if is_settled(waiting.request.segment_id)]:
            _fail(late, StorageError("The store was too slow for requests whose payloads were written already."))
            group = [waiting for waiting in group if waiting not in late]
        if not group:
            return
        try:
            outcomes = await self._store.append_requests([waiting.request for waiting in group])
        except StoreBusyError as error:  # the store is locked: each request alone would wait as long
            _fail(group, error)
        except StorageError as error:
            if len(group) == 1:
                _fail(group, error)
            else:
                for waiting in group:
                    await self._write([waiting])
        except BaseException as error:
            _fail(group, StorageError(f"The samples were not stored ({type(error).__name__})."))
            raise
        else:
            self._settle(group, outcomes)

    def _settle(self, group: Sequence[_Waiting], outcomes: Sequence[Owners | None]) -> None:
        """Answer the requests that were stored; let the others wait again, without their known samples."""
        for waiting, owners in zip(group, outcomes, strict=True):
            if owners is not None:
                self._leave_out(waiting, owners)
                self._enqueue([waiting])
                continue
            self._remember(waiting.request)
            if not waiting.done.done():
                waiting.done.set_result(waiting.known or _ALL_STORED)

    def _remember(self, request: InboxRequest) -> None:
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered, self._before = {}, self._remembered
        self._remembered.update(dict.fromkeys(request.sample_ids, request.device_id))

    def _leave_out(self, waiting: _Waiting, owners: Owners) -> None:
        """Take the samples out of a request that are known, or in it before."""
        request, places = waiting.request, waiting.places
        known, kept = dict(owners), list[int]()
        for place, sample_id in enumerate(request.sample_ids):
            if (owner := known.setdefault(sample_id, "")) == "":
                known[sample_id] = request.device_id
                kept.append(place)
            else:
                is_own = owner == request.device_id
                status = IngestStatus.DUPLICATE if is_own else IngestStatus.FOREIGN
                waiting.known[place if places is None else places[place]] = status
        waiting.request = without(request, set(range(len(request.sample_ids))).difference(kept))
        waiting.places = kept if places is None else [places[place] for place in kept]


def _fail(group: Sequence[_Waiting], error: StorageError) -> None:
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_exception(error)
