"""Batches of stored samples of one bundle, and their way from the queue to verdicts.

A single sample is judged at once. While one round of batches is judged, samples for the next arrive, and a round starts
at least ROUND_S after the one before unless that was full: a round of few samples costs nearly as much as one of many.

Batches that take long have a thread of their own: those with large samples, and those whose analysis must be loaded
first. The others wait for none of them.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from cloud.serving.cache import AnalysisCache
from cloud.serving.ports import Judge
from cloud.serving.traces import add_verdict_spans
from cloud.serving.verdicts import judge_batch, judge_on, undecided
from cloud.serving.worker import Worker
from cloud.store import Store
from cloud.store.events import WrittenEvent
from cloud.store.judging import WaitingSample, load_payloads, store_verdicts, waiting_samples
from shared.backoff import Backoff
from shared.errors import StorageError, VedetteError, WorkerCrashedError
from shared.samples import Verdict
from shared.tracing import SampleSpans
from vedette.v1 import sample_pb2

WINDOW_BATCHES, LARGEST_BATCHES = 8, 32  # batch sizes in a window, and in the largest batch of a quick analysis
WINDOW_S = 0.25
BATCH_S = 0.1
ROUND_S = 0.05
POLL_S = 1.0
FOUND_S, MAX_FOUND = 1.0, 1024  # judging bundles, by the bundle on the device
MAX_BATCH_PAYLOAD_BYTES = 64 * 2**20
MAX_BATCH_VALUES = 2**26
LARGE_SAMPLE_BYTES = 4 * 2**20  # decoded
RETRY_MIN_S, RETRY_MAX_S = 0.2, 10.0

Judged = Sequence[tuple[WaitingSample, Verdict]]
Pair: TypeAlias = tuple[WaitingSample, sample_pb2.Payload | None]


class Batcher:
    """Task that judges waiting samples and stores the verdicts.

    `find_bundle` returns the id of the bundle that judges samples, given the id of the bundle that screened them, or
    None. `on_judged` receives verdicts after they are stored, with their events and the seconds they took. `on_failure`
    receives each error that is retried. `worker` judges batches, `slow_worker` those that take long. `spans` receives
    the spans of traced samples.
    """

    def __init__(
        self,
        store: Store,
        analyses: AnalysisCache,
        worker: Worker,
        slow_worker: Worker,
        *,
        find_bundle: Callable[[str], Awaitable[str | None]],
        batch_size: int,
        false_alarm_rate: float,
        adaptive_depth: bool = False,
        on_judged: Callable[[Judged, Sequence[WrittenEvent], float], None],
        on_failure: Callable[[Exception], None],
        spans: SampleSpans | None = None,
    ) -> None:
        self._store = store
        self._analyses = analyses
        self._worker = worker
        self._slow_worker = slow_worker
        self._find_bundle = find_bundle
        self._batch_size = batch_size
        self._judge_batch = partial(judge_batch, false_alarm_rate=false_alarm_rate, adaptive_depth=adaptive_depth)
        self._judge_apart = partial(judge_on, false_alarm_rate=false_alarm_rate, adaptive_depth=adaptive_depth)
        self._on_judged = on_judged
        self._on_failure = on_failure
        self._spans = spans
        self._woken = asyncio.Event()
        self._slow_task: asyncio.Task[None] | None = None
        self._in_slow_task: set[int] = set()  # numbers of its samples
        self._sizes: dict[str, int] = {}  # of batches, by the bundle on the device
        self._found: dict[str, tuple[float, str | None]] = {}
        self._slow_backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)

    def wake(self) -> None:
        """Start the next batch without waiting for the poll, because samples have arrived."""
        self._woken.set()

    async def run(self) -> None:
        """Judge until cancelled. Errors go to `on_failure` and are retried; waiting samples stay in the store."""
        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        try:
            while True:
                try:
                    started_s = time.monotonic()
                    self._woken.clear()
                    judged = await self._judge_window()
                    if not judged:
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self._woken.wait(), POLL_S)
                    elif judged < self._batch_size:
                        await asyncio.sleep(started_s + ROUND_S - time.monotonic())
                    backoff.reset()
                except Exception as error:
                    self._on_failure(error)
                    await asyncio.sleep(backoff.next_s())
        finally:
            if self._slow_task is not None:
                self._slow_task.cancel()

    async def _judge_window(self) -> int:
        """Judge the next few batches; return the number of samples in them.

        When samples have arrived meanwhile, the rest of a window that takes long goes back to the queue: devices that
        sent little do not wait for those that sent much.
        """
        limit = max(WINDOW_BATCHES * self._batch_size, *self._sizes.values(), 1)
        waiting = await waiting_samples(self._store, limit)
        window = [item for item in waiting if item.number not in self._in_slow_task]
        until_s = time.monotonic() + WINDOW_S
        slow: list[tuple[list[WaitingSample], str]] = []
        judged = 0
        for batch in _batches(window, self._batch_size, self._sizes):
            bundle_id = await self._bundle_of(batch[0].edge_bundle_id)
            if bundle_id is not None and self._is_slow(batch, bundle_id):
                slow.append((batch, bundle_id))
                continue
            await self._judge(batch, bundle_id, self._worker)
            judged += len(batch)
            if self._woken.is_set() and time.monotonic() > until_s:
                break
        if slow and self._slow_task is None:
            self._in_slow_task = {item.number for batch, _ in slow for item in batch}
            self._slow_task = asyncio.create_task(self._judge_slowly(slow))
        return judged

    async def _bundle_of(self, edge_bundle_id: str) -> str | None:
        """Return the bundle that judges a sample; a found one is asked for again after FOUND_S."""
        until_s, bundle_id = self._found.get(edge_bundle_id, (0.0, None))
        if bundle_id is None or time.monotonic() > until_s:
            bundle_id = await self._find_bundle(edge_bundle_id)
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            self._found[edge_bundle_id] = (time.monotonic() + FOUND_S, bundle_id)
        return bundle_id

    def _is_slow(self, batch: Sequence[WaitingSample], bundle_id: str) -> bool:
        is_large = any(item.decoded_bytes > LARGE_SAMPLE_BYTES for item in batch)
        return is_large or not self._analyses.is_decided(bundle_id)

    async def _judge_slowly(self, batches: Sequence[tuple[Sequence[WaitingSample], str]]) -> None:
        """Judge batches that take long for WINDOW_S; the rest goes back to the queue."""
        until_s = time.monotonic() + WINDOW_S
        try:
            for batch, bundle_id in batches:
                await self._judge(batch, bundle_id, self._slow_worker)
                if time.monotonic() > until_s:
                    break
        except Exception as error:  # the samples stay in the queue
            self._on_failure(error)
            await asyncio.sleep(self._slow_backoff.next_s())
        else:
            self._slow_backoff.reset()
        finally:
            self._in_slow_task.clear()
            self._slow_task = None
            self._woken.set()

    async def _judge(self, batch: Sequence[WaitingSample], bundle_id: str | None, worker: Worker) -> None:
        started_s = time.monotonic()
        if bundle_id is None:
            edge_bundle_id = batch[0].edge_bundle_id
            reason = f"bundle {edge_bundle_id!r} is missing, and no bundle of its name is current: publish it"
            await self._write([(waiting, undecided(waiting, reason)) for waiting in batch], started_s)
            return
        try:
            modality, judge = await self._analyses.get(bundle_id)
        except StorageError:
            raise  # the samples stay in the queue and are retried
        except VedetteError as error:
            reason = str(error)
            await self._write([(waiting, undecided(waiting, reason, bundle_id)) for waiting in batch], started_s)
            return
        payloads = await load_payloads(self._store, [waiting.number for waiting in batch])
        for chunk in _chunks(batch, payloads):
            fitting = [pair for pair in chunk if pair[0].modality is modality]
            verdicts = await self._judge_on(worker, judge, fitting, bundle_id)
            judged = list(zip((waiting for waiting, _ in fitting), verdicts, strict=True))
            judged += [
                (
                    waiting,
                    undecided(waiting, f"{bundle_id} judges {modality} samples, not {waiting.modality}", bundle_id),
                )
                for waiting, _ in chunk
                if waiting.modality is not modality
            ]
            started_s = await self._write(judged, started_s)

    async def _judge_on(self, worker: Worker, judge: Judge, pairs: Sequence[Pair], bundle_id: str) -> list[Verdict]:
        """Return the verdicts of all samples; a batch that ends the worker's thread again and again is halved."""
        try:
            verdicts, seconds = await worker.run(self._judge_in_batches, judge, pairs, bundle_id)
        except WorkerCrashedError:
            return await self._judge_apart(worker, judge, pairs, bundle_id=bundle_id)
        if pairs:
            self._adapt_size(pairs[0][0].edge_bundle_id, seconds / len(pairs))
        return verdicts

    def _judge_in_batches(self, judge: Judge, pairs: Sequence[Pair], bundle_id: str) -> tuple[list[Verdict], float]:
        """Return the verdicts of all samples, judged `batch_size` at once, and the seconds they took. Blocking."""
        started_s, verdicts = time.perf_counter(), list[Verdict]()
        for start in range(0, len(pairs), self._batch_size):
            part = pairs[start : start + self._batch_size]
            verdicts += self._judge_batch(judge, part, bundle_id=bundle_id)
        return verdicts, time.perf_counter() - started_s

    def _adapt_size(self, edge_bundle_id: str, sample_s: float) -> None:
        """Let the analysis of the next batch take at most BATCH_S: few reads and writes serve quick ones."""
        size = int(BATCH_S / max(sample_s, 1e-6))
        if len(self._sizes) >= MAX_FOUND:
            self._sizes.clear()
        self._sizes[edge_bundle_id] = min(max(size, self._batch_size), LARGEST_BATCHES * self._batch_size)

    async def _write(self, judged: Judged, started_s: float) -> float:
        """Store the verdicts; return the time of the end.

        Retries without limit: judging the samples again would cost more than waiting.
        """
        backoff, judged_s = Backoff(RETRY_MIN_S, RETRY_MAX_S), time.monotonic()
        while True:
            try:
                written = await store_verdicts(self._store, judged)
                break
            except StorageError as error:
                self._on_failure(error)
                await asyncio.sleep(backoff.next_s())
        now_s = time.monotonic()
        self._on_judged(judged, written, now_s - started_s)
        if self._spans is not None:
            add_verdict_spans(self._spans, judged, judged_s - started_s, now_s - judged_s)
        return now_s


def _batches(
    window: Sequence[WaitingSample], batch_size: int, sizes: Mapping[str, int]
) -> Iterator[list[WaitingSample]]:
    """Yield batches of one bundle each, bounded in samples and bytes, in the order of their first samples.

    `sizes`: batch sizes of the bundles with another than `batch_size`.
    """
    by_bundle: dict[str, list[WaitingSample]] = {}
    for waiting in window:
        by_bundle.setdefault(waiting.edge_bundle_id, []).append(waiting)
    batches: list[list[WaitingSample]] = []
    for edge_bundle_id, group in by_bundle.items():
        most = sizes.get(edge_bundle_id, batch_size)
        batch: list[WaitingSample] = []
        payload_bytes = 0
        for waiting in group:
            if batch and (len(batch) >= most or payload_bytes + waiting.payload_bytes > MAX_BATCH_PAYLOAD_BYTES):
                batches.append(batch)
                batch, payload_bytes = [], 0
            batch.append(waiting)
            payload_bytes += waiting.payload_bytes
        batches.append(batch)
    place = {waiting.number: position for position, waiting in enumerate(window)}
    yield from sorted(batches, key=lambda batch: place[batch[0].number])


def _chunks(batch: Sequence[WaitingSample], payloads: dict[int, sample_pb2.Payload]) -> Iterator[list[Pair]]:
    """Yield chunks of the batch whose decoded values fit into memory: a small file can decode to a large image."""
    chunk: list[Pair] = []
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
