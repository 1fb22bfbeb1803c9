"""Batches of stored samples of one bundle, and their way from the queue to verdicts.

The batcher never waits to fill a batch. While one batch is judged, samples for the next arrive, so a single sample is
judged at once and many samples in full batches.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from cloud.serving.cache import AnalysisCache
from cloud.serving.verdicts import judge_batch, undecided
from cloud.serving.worker import Worker
from cloud.store import Store
from cloud.store.judging import WaitingSample, load_payloads, store_verdicts, waiting_samples
from shared.backoff import Backoff
from shared.errors import StorageError, VedetteError
from shared.samples import Verdict
from vedette.v1 import sample_pb2

WINDOW_BATCHES = 8
WINDOW_S = 0.25
POLL_S = 1.0
MAX_BATCH_PAYLOAD_BYTES = 64 * 2**20
MAX_BATCH_VALUES = 2**26
RETRY_MIN_S, RETRY_MAX_S = 0.2, 10.0

Judged = Sequence[tuple[WaitingSample, Verdict]]


class Batcher:
    """Task that judges waiting samples and stores the verdicts.

    `find_bundle` returns the id of the bundle that judges samples, given the id of the bundle that screened them, or
    None. `on_judged` receives verdicts after they are stored, with the seconds they took. `on_failure` receives each
    error that is retried.
    """

    def __init__(
        self,
        store: Store,
        analyses: AnalysisCache,
        worker: Worker,
        *,
        find_bundle: Callable[[str], Awaitable[str | None]],
        batch_size: int,
        false_alarm_rate: float,
        on_judged: Callable[[Judged, float], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._store = store
        self._analyses = analyses
        self._worker = worker
        self._find_bundle = find_bundle
        self._batch_size = batch_size
        self._false_alarm_rate = false_alarm_rate
        self._on_judged = on_judged
        self._on_failure = on_failure
        self._woken = asyncio.Event()
        self._started_s = 0.0

    def wake(self) -> None:
        """Start the next batch without waiting for the poll, because samples have arrived."""
        self._woken.set()

    async def run(self) -> None:
        """Judge until cancelled. Errors go to `on_failure` and are retried; waiting samples stay in the store."""
        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while True:
            try:
                self._woken.clear()
                if not await self._judge_window():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._woken.wait(), POLL_S)
                backoff.reset()
            except Exception as error:
                self._on_failure(error)
                await asyncio.sleep(backoff.next_s())

    async def _judge_window(self) -> bool:
        """Judge the next few batches; return whether any sample was waiting.

        When samples have arrived meanwhile, the rest of a window that takes long goes back to the queue: devices that
        sent little do not wait for those that sent much.
        """
        window = await waiting_samples(self._store, WINDOW_BATCHES * self._batch_size)
        until_s = time.monotonic() + WINDOW_S
        for batch in _batches(window, self._batch_size):
            await self._judge(batch)
            if self._woken.is_set() and time.monotonic() > until_s:
                break
        return bool(window)

    async def _judge(self, batch: Sequence[WaitingSample]) -> None:
        self._started_s = time.monotonic()
        edge_bundle_id = batch[0].edge_bundle_id
        bundle_id = await self._find_bundle(edge_bundle_id)
        if bundle_id is None:
            reason = f"bundle {edge_bundle_id!r} is missing, and no bundle of its name is current: publish it"
            await self._write([(waiting, undecided(waiting, reason)) for waiting in batch])
            return
        try:
            modality, judge = await self._analyses.get(bundle_id)
        except StorageError:
            raise  # the samples stay in the queue and are retried
        except VedetteError as error:
            await self._write([(waiting, undecided(waiting, str(error), bundle_id)) for waiting in batch])
            return
        payloads = await load_payloads(self._store, [waiting.number for waiting in batch])
        for chunk in _chunks(batch, payloads):
            fitting = [pair for pair in chunk if pair[0].modality is modality]
            verdicts = await self._worker.run(
                judge_batch, judge, fitting, bundle_id=bundle_id, false_alarm_rate=self._false_alarm_rate
            )
            judged = list(zip((waiting for waiting, _ in fitting), verdicts, strict=True))
            judged += [
                (
                    waiting,
                    undecided(waiting, f"{bundle_id} judges {modality} samples, not {waiting.modality}", bundle_id),
                )
                for waiting, _ in chunk
                if waiting.modality is not modality
            ]
            await self._write(judged)

    async def _write(self, judged: Judged) -> None:
        """Store the verdicts, retrying without limit: judging the samples again would cost more than waiting."""
        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while True:
            try:
                await store_verdicts(self._store, judged)
                break
            except StorageError as error:
                self._on_failure(error)
                await asyncio.sleep(backoff.next_s())
        now_s = time.monotonic()
        self._on_judged(judged, now_s - self._started_s)
        self._started_s = now_s


def _batches(window: Sequence[WaitingSample], batch_size: int) -> Iterator[list[WaitingSample]]:
    """Yield batches of one bundle each, bounded in samples and bytes, in the order of their first samples."""
    by_bundle: dict[str, list[WaitingSample]] = {}
    for waiting in window:
        by_bundle.setdefault(waiting.edge_bundle_id, []).append(waiting)
    batches: list[list[WaitingSample]] = []
    for group in by_bundle.values():
        batch: list[WaitingSample] = []
        payload_bytes = 0
        for waiting in group:
            if batch and (len(batch) >= batch_size or payload_bytes + waiting.payload_bytes > MAX_BATCH_PAYLOAD_BYTES):
                batches.append(batch)
                batch, payload_bytes = [], 0
            batch.append(waiting)
            payload_bytes += waiting.payload_bytes
        batches.append(batch)
    place = {waiting.number: position for position, waiting in enumerate(window)}
    yield from sorted(batches, key=lambda batch: place[batch[0].number])


def _chunks(
    batch: Sequence[WaitingSample], payloads: dict[int, sample_pb2.Payload]
) -> Iterator[list[tuple[WaitingSample, sample_pb2.Payload | None]]]:
    """Yield chunks of the batch whose decoded values fit into memory: a small file can decode to a large image."""
    chunk: list[tuple[WaitingSample, sample_pb2.Payload | None]] = []
    values = 0
    for waiting in batch:
        payload = payloads.get(waiting.number)
        size = math.prod(payload.shape) if payload is not None else 0
        if chunk and values + size > MAX_BATCH_VALUES:
            yield chunk
            chunk, values = [], 0
        chunk.append((waiting, payload))
        values += size
    if chunk:
        yield chunk
