"""Port of the store: the guarantees of each back end, and a function that opens one.

Back ends are SQLite (`cloud.store.sqlite`), the default in the data directory, and PostgreSQL (`cloud.store.postgres`),
which the setting `store_url` names. `tests/cloud/store` runs one suite against both.
"""

import abc
import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Self, TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.settings import StoreLocation
from cloud.store.audit import local_actor
from cloud.store.inbox_request import Doubles, InboxRequest, Owners
from cloud.store.read_queue import DEVICE_READS, ReadLimits
from cloud.store.segments import Segments
from cloud.store.verdict_rows import NewVerdict, WrittenVerdicts
from shared.errors import SettingsError, StorageError

MAX_TOLD_BYTES = 96 * 1024
CLAIM_S = 30.0  # from the last renewal of the claims of a process on waiting samples to their end
Where: TypeAlias = StoreLocation | Path
"""Location of a store; a path alone is the data directory of a SQLite store."""


def check_told(message: bytes) -> None:
    """Raise StorageError for a message that is too large for `Store.tell`."""
    if len(message) > MAX_TOLD_BYTES:
        raise StorageError(f"A message of {len(message)} bytes was not sent: the limit is {MAX_TOLD_BYTES} bytes.")


class Store(abc.ABC):
    """Open store; close it, or use it as an asynchronous context.

    `actor` is named in the audit log as the author of changes; by default the user of this process. `segments` hold
    large payloads and maps, below `segments_url`; if that is empty, they stay in the database.

    Each failure of the database MUST be raised as StorageError, whose message names the store and a remedy and holds
    no password.
    """

    claimant: str = ""
    """Name under which this process claims waiting samples; empty where no other process judges."""
    step_s: float = 0.02
    """Aim for one transaction of `deleting`; a payload may be megabytes, so rows alone do not bound it."""
    keeps_longer: float = 0.0
    """Part of their age by which expired rows may outlive it, because the store drops many at once."""

    def __init__(self, actor: str = "", segments_url: str = "") -> None:
        self.actor = actor or local_actor()
        self.segments = Segments(self, segments_url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abc.abstractmethod
    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Return a connection with one consistent view of the store.

        The view MUST hold every transaction that was committed before, and MUST NOT change while others commit. Readers
        MUST NOT wait for writers, nor writers for readers. Beyond the ReadLimits of the store a reader MUST be refused,
        and interrupted at its deadline. The connection MUST refuse or drop changes.

        Raises StoreBusyError beyond the limits of reading, StorageError if the store cannot be read.
        """

    @abc.abstractmethod
    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Run the block as one transaction.

        At the end of the block the changes MUST be on disk; if the block raises or is cancelled, there MUST be none.
        Transactions of `writing` MUST run one after the other, those of other processes too, and each MUST see the
        changes of all before it. So a block may read, decide and write, and numbers that it lets the store assign are
        in the order in which they become visible: a cursor over the events skips none.

        Raises StorageError if the store cannot be written, such as on a full disk.
        """

    @abc.abstractmethod
    def deleting(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Run the block as one transaction like `writing`, whose changes may reach the disk after its end.

        They MUST be there before those of a later transaction of `writing`, and after `rest`. For rows that may be
        there again after a power cut, such as expired ones, so that others wait for no disk.

        Raises StorageError if the store cannot be written.
        """

    @abc.abstractmethod
    def appending(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Run the block as one transaction that may run beside others.

        It MUST be durable and whole like one of `writing`, but other transactions may commit between its statements,
        and its numbers may become visible out of order. For rows that conflict only by a unique key, such as claims on
        samples; never for events, and never to read, decide and write.

        Raises StorageError if the store cannot be written.
        """

    @abc.abstractmethod
    async def append_requests(self, requests: Sequence[InboxRequest]) -> list[Owners | None]:
        """Put requests into the inbox as one transaction; return None for each that was put there.

        It MUST be durable and whole like one of `writing`. A request whose first sample is stored already, as a row or
        as the first one of a request in the inbox, MUST be left out; its answer is the owners of those of its samples
        that are stored. Of several such requests in one call the first MUST be put there. Raises StorageError,
        StoreBusyError if others hold the store locked.
        """

    @abc.abstractmethod
    async def unpack(self, numbers: Sequence[int]) -> list[Doubles]:
        """Turn requests of the inbox into waiting samples as one transaction; return the samples that were not new.

        It MUST be durable and whole like one of `writing`: each sample MUST be a row afterwards, of several with one id
        the first, and the requests MUST have left the inbox, so that an unpacking which was cut is repeated without
        doubles. Requests that another process has unpacked, or is unpacking, MUST be passed over without waiting.
        Samples of one device MUST get numbers in the order of `numbers`. Raises StorageError.
        """

    @abc.abstractmethod
    async def add_verdicts(self, rows: Sequence[NewVerdict]) -> WrittenVerdicts:
        """Insert verdicts and their events, and take the samples off the queue, as one transaction of `writing`.

        A verdict on a sample that waits no more MUST be left out. Claims on the samples MUST end. Raises
        RefusedRowError, which MUST leave the transaction without effect, if a row has values that the store does not
        take, and StorageError if the store cannot be written.
        """

    @abc.abstractmethod
    async def make_durable(self, connection: AsyncConnection) -> None:
        """Make the transaction of `writing` touch the disk when it commits, even without a change."""

    @abc.abstractmethod
    def version(self) -> int:
        """Return a number that MUST change with every commit of any process; it may change without one.

        It takes microseconds and runs in the event loop. A commit of another process MUST show within a second. Raises
        StorageError.
        """

    @abc.abstractmethod
    def call_on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the event loop soon after commits; calls close together may become one.

        Those of other processes MUST cause a call where several may serve the store, unless the connection to the
        database is lost; when it is there again, `callback` MUST be called once.
        """

    @abc.abstractmethod
    async def tell(self, message: bytes) -> None:
        """Hand a message to the callbacks of `call_on_message`, in this process and in all others on the store.

        It has at most MAX_TOLD_BYTES, and MUST NOT be in any table. It may be lost, such as while a process has no
        connection; messages of one process MUST arrive in order. Raises StorageError, also for a larger message.
        """

    @abc.abstractmethod
    def call_on_message(self, callback: Callable[[bytes], None]) -> None:
        """Call `callback` in the event loop with each message of `tell`."""

    @abc.abstractmethod
    def leading(self) -> AbstractAsyncContextManager[asyncio.Future[None]]:
        """Wait until no other process leads, and lead for the time of the block.

        The future is done when the lead may have passed to another process, as after a lost connection; the block MUST
        then end. After the end of a leading process, killed or not, another MUST lead within seconds. Where one process
        alone may serve the store, it leads at once.
        """

    @abc.abstractmethod
    async def make_room(self) -> None:
        """Prepare the store for the next samples; one process calls it from time to time.

        A store that was not prepared MUST take samples nevertheless. Raises StorageError.
        """

    @abc.abstractmethod
    async def drop_expired(self, limits: Mapping[str, float]) -> dict[str, int]:
        """Drop expired rows that the store keeps together; return their number by table.

        `limits`: time before which a sample was judged whose rows of "payloads" or "verdicts" expire; with a verdict
        its sample, payload and map go too. Rows of samples that wait or have a label MUST stay. Rows that the store
        cannot drop together stay for the deletion row by row, which begins `keeps_longer` later. Others MUST NOT wait
        for more than about 100 ms. Raises StorageError.
        """

    @abc.abstractmethod
    async def rest(self, pause_s: float) -> None:
        """Pause for at least `pause_s` between two steps of much work, and let the store write back its changes.

        Commits of others then find the disk free.
        """

    @abc.abstractmethod
    async def return_space(self) -> None:
        """Return the space of deleted rows, in steps of about 20 ms for writers. Raises StorageError."""

    @abc.abstractmethod
    async def copy_to(self, folder: Path) -> None:
        """Write a SQLite store with all rows of one view of this store into an empty folder.

        Writers MUST NOT wait for it. Raises StorageError.
        """

    @abc.abstractmethod
    def stop_reading(self) -> None:
        """Interrupt queries that run for long, now and later, so that their connections can be closed."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Close all connections."""


def location_of(where: Where) -> StoreLocation:
    """Return the location of a store."""
    return where if isinstance(where, StoreLocation) else StoreLocation(where)


def open_store(where: Where, reads: ReadLimits = DEVICE_READS, *, actor: str = "", claimant: str = "") -> Store:
    """Return the store at a location; it connects when it is used.

    `claimant`: name for claims on samples where several processes judge; empty for a new one.
    """
    location = location_of(where)
    if location.url:
        from cloud.store.postgres.store import PostgresStore

        return PostgresStore(location.url, reads, actor=actor, claimant=claimant, segments_url=location.segments_url)
    from cloud.store.sqlite.store import SqliteStore

    return SqliteStore(location.data_dir, reads, actor=actor, segments_url=location.segments_url)


def store_exists(where: Where) -> bool:
    """Return whether a service has made its store there; raises StorageError if its server does not answer."""
    location = location_of(where)
    if location.url:
        from cloud.store.postgres.migration import has_tables

        return has_tables(location.url)
    from cloud.store.sqlite.store import DATABASE_FILE

    return (location.data_dir / DATABASE_FILE).exists()


def relies_on_authority(where: Where) -> bool:
    """Return whether a database on a server holds tokens, devices or key sets, which belong to one authority.

    A SQLite file and its authority are in one folder, so it never does. Raises StorageError.
    """
    location = location_of(where)
    if not location.url:
        return False
    from cloud.store.postgres.migration import holds_devices

    return holds_devices(location.url)


def check_store(where: Where, option: str = "--config") -> None:
    """Raise SettingsError unless a service has made its store there; make nothing.

    `option` names the settings of the service on the command line.
    """
    if not store_exists(where):
        location = location_of(where)
        raise SettingsError(
            f"{location}: no service here. Give {option} with the settings of the service, or start one with "
            "vedette cloud serve."
        )
