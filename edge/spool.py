"""Durable store-and-forward queue: a forwarded batch is on disk before the pipeline forgets it.

One thread owns the file and commits for all others, many batches at a time, so that durability costs little. While the
disk refuses, samples wait in bounded memory and the agent reports it; beyond the bound the least suspicious are dropped
and counted.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from edge.counters import Counters
from edge.disk import disk_error_text, free_bytes
from edge.settings import SpoolSettings
from edge.spool_queue import PendingBatch, PendingQueue, Transaction
from edge.spool_store import NewSample, Settled, SpooledSample, SpoolStore
from edge.sqlite_file import is_damaged
from shared.errors import StorageError
from shared.logs import EventLog, Throttle
from shared.status import SpoolStatus

MIN_GROUP_S, MAX_GROUP_S = 0.005, 0.05  # time that a transaction waits for more samples
GROUP_TIME_PER_COMMIT = 4.0  # of the duration of the last transaction: a slow disk gets larger transactions
RETRY_S = 1.0
MIN_TRANSACTION_BYTES = 2**16

log = EventLog("spool")


class Spool:
    """The queue. Safe to use from any thread."""

    def __init__(self, path: Path, settings: SpoolSettings, counters: Counters) -> None:
        """Open or create the file, and raise `counters` to its counts. Raises StorageError.

        `lost_before`: routed samples that are missing at the start, as after damage; they count as dropped.
        """
        self._path, self._settings, self._counters = path, settings, counters
        self._store = self._open()
        self._cursors = self._store.cursors()
        counters.raise_to(self._store.saved_counters())
        self.lost_before = self._count_lost()
        self._changed = threading.Condition()
        self._store_lock = threading.Lock()  # the reader's connection, and its replacement after damage
        self._queue = PendingQueue()
        self._committing = 0  # samples in the transaction under way
        self._transaction_bytes = settings.max_pending_bytes  # at most; less after the disk refused one
        self._settled: list[Settled] = []
        self._in_flight: set[int] = set()
        self._commit_s = 0.0  # duration of the last transaction
        self._error = ""
        self._read_error: sqlite3.Error | None = None
        self._closing = False
        self._listener: Callable[[], None] = lambda: None
        self._throttle = Throttle()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the spool's thread runs."""
        return self._thread.is_alive()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` from the spool's thread after each transaction."""
        self._listener = listener

    def cursor(self, source_id: str) -> str:
        """Return the cursor of a source as of its last batch on disk, or an empty text."""
        with self._changed:
            return self._cursors.get(source_id, "")

    def append(
        self,
        samples: Sequence[NewSample],
        counts: Mapping[str, int],
        on_durable: Sequence[Callable[[], None]] = (),
        cursors: Mapping[str, str] | None = None,
    ) -> None:
        """Add samples with the counts of their batch; `on_durable` are called once they are on disk.

        `cursors`: position of each source after the batch, written in the same transaction.

        Waits while too much is pending, so that a slow disk slows the source down. While the disk refuses, a source
        without a cursor does not wait, and the least suspicious samples are dropped; one with a cursor waits.
        """
        with self._changed:
            while self._is_full() and not self._closing and (cursors or not self._error):
                self._changed.wait(RETRY_S)
            if cursors and self._closing and self._is_full():
                return  # the source reads the batch again after the next start
            self._queue.add(PendingBatch(samples, counts, on_durable, cursors or {}))
            self._changed.notify_all()

    def take(self, max_samples: int, max_bytes: int) -> list[SpooledSample]:
        """Return the most suspicious samples, now in flight; nothing while the disk fails.

        The caller MUST settle or release each of them.
        """
        with self._store_lock:
            with self._changed:
                in_flight = set(self._in_flight)
            try:
                samples = self._store.take(max_samples, max_bytes, in_flight)
            except sqlite3.Error as error:
                with self._changed:  # the spool's thread handles it
                    self._read_error = error
                    self._changed.notify_all()
                return []
            with self._changed:
                self._in_flight.update(sample.seq for sample in samples)
        return samples

    def settle(self, settled: Sequence[Settled], counts: Mapping[str, int]) -> None:
        """Remove samples in flight for good, and add further counts in the same transaction."""
        with self._changed:
            self._settled.extend(settled)
            self._queue.add_counts(counts)
            self._changed.notify_all()

    def release(self, seqs: Sequence[int]) -> None:
        """Return undelivered samples from flight to the queue."""
        with self._changed:
            self._in_flight.difference_update(seqs)

    def free_bytes(self) -> int | None:
        """Return the free space of the disk that holds the spool; None if unknown."""
        try:
            return free_bytes(self._path)
        except OSError:
            return None

    def status(self) -> SpoolStatus:
        """Return size and error state of the spool."""
        with self._changed:
            pending = self._queue.samples + self._committing
            return SpoolStatus(samples=self._store.samples, bytes=self._store.bytes, pending=pending, error=self._error)

    def is_empty(self) -> bool:
        """Return whether nothing is left to deliver or to write."""
        status = self.status()
        with self._changed:
            return status.samples == 0 and status.pending == 0 and not self._settled

    def close(self, timeout_s: float = 3.0) -> None:
        """Write pending work and close the file; work that the disk refuses is lost, counted and logged."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.error("spool_not_closed", path=self._path, pending=self._queue.samples)
            return
        self._store.close()

    def _open(self, settled: Collection[bytes] = ()) -> SpoolStore:
        store = SpoolStore(self._path, self._settings.max_bytes, self._settings.max_age_s, settled)
        if store.set_aside is not None:
            self._counters.add({"spools_set_aside": 1})
        return store

    def _count_lost(self) -> int:
        """Count routed samples that are neither in the file nor counted as gone, and return their number.

        There may also be too many in the file: a damaged write-ahead log can end before their removal.
        """
        counts = self._counters.snapshot()
        gone = sum(counts[name] for name in ("samples_acknowledged", "samples_refused", "samples_dropped"))
        lost = counts["samples_forwarded"] + counts["samples_audited"] - gone - self._store.samples
        if lost > 0:
            self._counters.add({"samples_dropped": lost})
            log.error("samples_lost", samples=lost, path=self._path, reason="the file no longer holds them")
        self._store.counted_before = max(0, -lost)
        return max(lost, 0)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._has_work() or self._closing):
                    self._changed.wait()
                if self._closing and not self._has_work():
                    return
                pause_s = min(max(MIN_GROUP_S, GROUP_TIME_PER_COMMIT * self._commit_s), MAX_GROUP_S)
                self._changed.wait_for(lambda: self._closing or self._is_full(), pause_s)
            if self._commit():
                continue
            if self._closing:
                self._give_up()
                return
            with self._changed:
                self._changed.wait(RETRY_S)

    def _is_full(self) -> bool:
        return self._queue.bytes > self._settings.max_pending_bytes

    def _has_work(self) -> bool:
        return bool(self._queue or self._settled) or self._read_error is not None

    def _commit(self) -> bool:
        """Write pending work in one transaction; False if the disk refused, and then the work is pending again."""
        with self._changed:
            read_error, self._read_error = self._read_error, None
        if read_error is not None:
            self._report(read_error)
        with self._changed:
            # The disk works again once it accepts all samples that waited, or a transaction of full size. Samples that
            # arrive during the commit do not count: under steady load there are always some.
            is_full_size = self._transaction_bytes >= self._settings.max_pending_bytes
            work = self._queue.take(self._transaction_bytes)
            shows_recovery = is_full_size or not self._queue.droppable_samples
            settled, self._settled = self._settled, []
            self._committing = len(work.samples)
            in_flight = self._in_flight - {item.sample.seq for item in settled}
        counts, cursors = work.all_counts(), work.cursors
        started_s = time.perf_counter()
        try:
            gone = self._store.commit(work.samples, settled, in_flight, self._counters.snapshot(counts), cursors)
        except Exception as error:  # of any kind: without this thread nothing would become durable any more
            # A smaller transaction may find room, and a large one that fails leaves none for anything else.
            self._transaction_bytes = max(work.size // 2, MIN_TRANSACTION_BYTES)
            self._restore(work, settled)
            self._report(error)
            return False
        self._commit_s = time.perf_counter() - started_s
        counts.update(gone.counts())
        self._counters.add(counts)
        with self._changed:
            self._committing = 0
            callbacks = work.finish()
            self._in_flight.difference_update(item.sample.seq for item in settled)
            self._transaction_bytes = min(2 * self._transaction_bytes, self._settings.max_pending_bytes)
            recovered = ""
            if shows_recovery:
                recovered, self._error = self._error, ""
            self._cursors.update(cursors)
            self._changed.notify_all()
        if recovered:
            log.info("spool_recovered", path=self._path)
        self._log_overflow(gone.full, gone.expired)
        self._call([*callbacks, self._listener])
        return True

    def _call(self, callbacks: Sequence[Callable[[], None]]) -> None:
        """Call each callback; one that fails is logged, because it must not end the spool's thread."""
        for callback in callbacks:
            try:
                callback()
            except Exception as error:
                if self._throttle.allow("callback"):
                    log.error("callback_failed", error=repr(error), advice="the samples are durable; report this")

    def _restore(self, work: Transaction, settled: list[Settled]) -> None:
        """Return the work of a failed transaction to the queue, and drop samples beyond the bound in memory."""
        self._counters.add(work.counts)  # these samples were screened and routed, even if they are lost later
        with self._changed:
            self._committing = 0
            self._queue.put_back(work)
            self._settled = settled + self._settled
            dropped, callbacks = self._queue.drop_beyond(self._settings.max_pending_bytes)
        if dropped:
            self._counters.add({"samples_dropped": dropped})
        self._call(callbacks)

    def _report(self, error: Exception) -> None:
        """Enter the error state, or start a new file if the current one is damaged."""
        if is_damaged(error) and self._replace_store():
            return
        reason = disk_error_text(error, self._path)
        text = f"{self._path}: {reason}"
        with self._changed:
            is_new, self._error = not self._error, text
            self._changed.notify_all()
        count = self._throttle.allow(str(error))
        if is_new or count:
            log.error(
                "spool_failed",
                path=self._path,
                error=reason,
                advice="free some space; until then samples wait in memory, and the least suspicious are dropped",
                samples_pending=self._queue.samples,
                samples_dropped=self._counters.snapshot()["samples_dropped"],
            )

    def _replace_store(self) -> bool:
        """Start a new file with the readable samples of the damaged one, without those settled since."""
        with self._store_lock:
            with self._changed:
                settled = {item.sample.sample_id: item.refusal for item in self._settled}
            try:
                before = self._store.samples
                self._store.close()
                self._store = self._open(settled)
                counts = {
                    "samples_acknowledged": sum(not refusal for refusal in settled.values()),
                    "samples_refused": sum(bool(refusal) for refusal in settled.values()),
                    "samples_dropped": max(0, before - len(settled) - self._store.samples),
                }
                self._store.commit([], [], set(), self._counters.snapshot(counts), self._cursors)
                self._counters.add(counts)
            except (sqlite3.Error, StorageError) as error:
                log.error("spool_not_replaced", path=self._path, error=error)
                return False
        with self._changed:
            self._in_flight.clear()
            self._settled = [item for item in self._settled if item.sample.sample_id not in settled]
        return True

    def _give_up(self) -> None:
        lost = self._queue.droppable_samples  # the sources read the rest again
        self._counters.add({"samples_dropped": lost})
        log.error("samples_lost", samples=lost, reason=self._error, advice="the disk refused them until the end")

    def _log_overflow(self, full: int, expired: int) -> None:
        for reason, dropped in (("full", full), ("too old", expired)):
            count = self._throttle.allow(reason, dropped) if dropped else 0
            if count:
                log.warning("samples_dropped", reason=f"spool {reason}", samples=count, spool_bytes=self._store.bytes)
