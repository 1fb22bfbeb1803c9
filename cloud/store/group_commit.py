"""Group commit: requests that arrive while a transaction commits are written together by the next one."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloud.store.engine import Store
from cloud.store.ingest import IngestStatus, store_requests
from cloud.store.sample_rows import Row
from shared.errors import StorageError, StoreBusyError

MAX_SAMPLES = 4096  # of one transaction, unless a request alone has more
MAX_BYTES = 32 * 2**20


@dataclass(slots=True)
class _Waiting:
    rows: Sequence[Row]
    done: "asyncio.Future[list[IngestStatus]]"
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum([len(row[1][2]) for row in self.rows])


class GroupCommit:
    """Writer of the samples of all requests; used on the event loop only.

    A transaction that fails is repeated for each of its requests alone, so that one request cannot fail others.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    def store(self, rows: Sequence[Row]) -> "asyncio.Future[list[IngestStatus]]":
        """Return the status of each sample once its transaction is on disk.

        The future raises StorageError if nothing of the request was stored. Cancelling it does not stop the writing.
        """
        waiting = _Waiting(rows, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return waiting.done

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._write(self._next_group())
        finally:
            self._task = None

    def _next_group(self) -> list[_Waiting]:
        """Remove and return the requests of the next transaction, in the order of their arrival."""
        samples = size = count = 0
        for waiting in self._waiting:
            samples += len(waiting.rows)
            size += waiting.size
            if count and (samples > MAX_SAMPLES or size > MAX_BYTES):
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _write(self, group: Sequence[_Waiting]) -> None:
        try:
            outcomes = await store_requests(self._store, [waiting.rows for waiting in group])
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
            for waiting, statuses in zip(group, outcomes, strict=True):
                if not waiting.done.done():
                    waiting.done.set_result(statuses)


def _fail(group: Sequence[_Waiting], error: StorageError) -> None:
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_exception(error)
