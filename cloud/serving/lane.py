"""Pipeline of batches: while one batch is judged, the next one is read and decoded, and the one before is stored."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from cloud.serving.batches import Batch, Pair, chunks_of
from cloud.serving.cache import AnalysisCache
from cloud.serving.isolation import ENDS_PROCESS, Isolation
from cloud.serving.ports import Judge
from cloud.serving.traces import add_verdict_spans
from cloud.serving.verdict_writer import RETRY_MAX_S, RETRY_MIN_S, store_or_refuse
from cloud.serving.verdicts import Decoded, crashed, decode_batch, judge_batch, undecided
from cloud.serving.worker import Worker, run_in_halves
from cloud.store import Store
from cloud.store.contents import load_payloads
from cloud.store.events import WrittenEvent
from cloud.store.judging import WaitingSample
from shared.backoff import Backoff
from shared.errors import ConnectionFailedError, StorageError, VedetteError, WorkerCrashedError
from shared.samples import Verdict
from shared.tracing import SampleSpans

COMPUTING_SHARE = 0.125  # of its time; a thread that computes less waits, such as for a GPU
END_S = 0.5  # for verdicts that are being stored when the pipeline ends

Judged: TypeAlias = Sequence[tuple[WaitingSample, Verdict]]


@dataclass(frozen=True, slots=True)
class Judging:
    """How samples are judged.

    `on_judged` receives verdicts after they are stored, with their events and the seconds they took. `on_failure`
    receives each error that is retried. `spans` receives the spans of traced samples. `isolation` knows samples that
    end the process.
    """

    batch_size: int
    false_alarm_rate: float
    adaptive_depth: bool
    on_judged: Callable[[Judged, Sequence[WrittenEvent], float], None]
    on_failure: Callable[[Exception], None]
    spans: SampleSpans | None = None
    isolation: Isolation = field(default_factory=Isolation)


@dataclass(slots=True)
class _Part:
    """Samples on their way; `judge` is None if all of them have their verdicts already.

    `started_s`, `ended_s`: when they began to be judged, and when all of them had a verdict.
    """

    bundle_id: str
    samples: Sequence[WaitingSample]
    judge: Judge | None = None
    decoded: list[Decoded] = field(default_factory=list)
    judged: list[tuple[WaitingSample, Verdict]] = field(default_factory=list)
    started_s: float = 0.0
    ended_s: float = 0.0


class Lane:
    """Pipeline with one batch in each stage: reading and decoding, judging, storing.

    `worker` judges, `decoder` decodes. `on_speed` receives the bundle on the device and the seconds a sample took.
    `numbers` are the samples on their way: they still wait in the store.
    """

    def __init__(
        self,
        store: Store,
        analyses: AnalysisCache,
        worker: Worker,
        decoder: Worker,
        judging: Judging,
        on_speed: Callable[[str, float], None],
    ) -> None:
        self._store, self._analyses = store, analyses
        self._worker, self._decoder = worker, decoder
        self._judging, self._on_speed = judging, on_speed
        self.numbers: set[int] = set()
        self._decoded: asyncio.Queue[_Part] = asyncio.Queue()
        self._judged: asyncio.Queue[_Part] = asyncio.Queue()
        self._room_ahead, self._room_behind = asyncio.Semaphore(1), asyncio.Semaphore(1)
        self._unjudged = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stored_s = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether a batch is read, decoded or judged; one may be stored in any case."""
        return self._unjudged > 0

    async def wait_until_idle(self) -> None:
        """Wait until no batch is read, decoded or judged."""
        await self._idle.wait()

    async def submit(self, batch: Batch, bundle_id: str | None) -> None:
        """Read and decode a batch as soon as there is room for it ahead of the batch that is judged.

        `bundle_id` judges it; None: there is no such bundle. Returns when the batch waits to be judged. Raises
        StorageError or ConnectionFailedError; the samples then stay in the queue of the store.
        """
        await self._room_ahead.acquire()
        holds_room = True
        left = {waiting.number for waiting in batch.samples}
        self.numbers |= left
        self._count(1)
        try:
            async for part in self._parts(batch, bundle_id):
                if not holds_room:
                    await self._room_ahead.acquire()
                left -= {waiting.number for waiting in part.samples}
                holds_room = False
                self._count(1)
                self._decoded.put_nowait(part)
        finally:
            if holds_room:
                self._room_ahead.release()
            self.numbers -= left
            self._count(-1)

    async def run(self) -> None:
        """Judge and store what is submitted, until cancelled; verdicts that are being stored have END_S to end."""
        writer = asyncio.create_task(self._store_parts())
        try:
            await self._judge_parts()
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._judged.join(), END_S)
            writer.cancel()
            await asyncio.wait([writer])

    def _count(self, parts: int) -> None:
        self._unjudged += parts
        if self._unjudged:
            self._idle.clear()
        else:
            self._idle.set()

    async def _parts(self, batch: Batch, bundle_id: str | None) -> AsyncIterator[_Part]:
        """Yield the batch decoded, in parts that fit into memory, or with verdicts if it cannot be judged."""
        if bundle_id is None:
            reason = f"bundle {batch.edge_bundle_id!r} is missing, and no bundle of its name is current: publish it"
            yield _undecided(batch.samples, reason, "")
            return
        try:
            modality, judge = await self._analyses.get(bundle_id)
        except (StorageError, ConnectionFailedError):
            raise  # the samples stay in the queue and are retried
        except VedetteError as error:
            yield _undecided(batch.samples, str(error), bundle_id)
            return
        samples, isolation = batch.samples, self._judging.isolation
        if condemned := [waiting for waiting in samples if waiting.sample_id in isolation.condemned]:
            yield _undecided(condemned, ENDS_PROCESS, bundle_id)
            samples = [waiting for waiting in samples if waiting.sample_id not in isolation.condemned]
        payloads = await load_payloads(self._store, [waiting.number for waiting in samples])
        for chunk in chunks_of(samples, payloads):
            part = _Part(bundle_id, [waiting for waiting, _ in chunk], judge)
            fitting = [pair for pair in chunk if pair[0].modality is modality]
            with isolation.under_way([waiting.sample_id for waiting, _ in fitting]):
                part.decoded = await run_in_halves(self._decoder, decode_batch, fitting, _unreadable)
            part.judged = [
                (
                    waiting,
                    undecided(waiting, f"{bundle_id} judges {modality} samples, not {waiting.modality}", bundle_id),
                )
                for waiting, _ in chunk
                if waiting.modality is not modality
            ]
            yield part

    async def _judge_parts(self) -> None:
        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while True:
            part = await self._decoded.get()
            self._room_ahead.release()
            part.started_s = time.monotonic()
            try:
                if part.judge is not None:
                    with self._judging.isolation.under_way([item.waiting.sample_id for item in part.decoded]):
                        verdicts = await self._judge(part.judge, part.decoded, part.bundle_id)
                    part.judged += zip((item.waiting for item in part.decoded), verdicts, strict=True)
                    part.decoded.clear()  # the values take the most memory
                part.ended_s = time.monotonic()
                await self._room_behind.acquire()
                self._judged.put_nowait(part)
                backoff.reset()
            except Exception as error:  # the samples stay in the queue
                self._leave(part)
                self._judging.on_failure(error)
                await asyncio.sleep(backoff.next_s())
            finally:
                self._count(-1)

    async def _judge(self, judge: Judge, decoded: Sequence[Decoded], bundle_id: str) -> list[Verdict]:
        """Return the verdicts of all samples; a batch that ends the worker's thread again and again is halved."""
        settings = self._judging
        judging = partial(
            judge_batch,
            judge,
            bundle_id=bundle_id,
            false_alarm_rate=settings.false_alarm_rate,
            adaptive_depth=settings.adaptive_depth,
        )
        try:
            verdicts, seconds = await self._worker.run(
                _judge_in_batches, judging, decoded, settings.batch_size, self._worker.made_progress
            )
        except WorkerCrashedError:
            return await run_in_halves(
                self._worker, judging, decoded, lambda item, error: crashed(item.waiting, error, bundle_id)
            )
        if decoded:
            self._on_speed(decoded[0].waiting.edge_bundle_id, seconds / len(decoded))
        return verdicts

    async def _store_parts(self) -> None:
        while True:
            part = await self._judged.get()
            try:
                await self._store_part(part)
            except Exception as error:  # the samples stay in the queue
                self._judging.on_failure(error)
            finally:
                self._leave(part)
                self._room_behind.release()
                self._judged.task_done()

    async def _store_part(self, part: _Part) -> None:
        """Store the verdicts; see `store_or_refuse`."""
        stored = await store_or_refuse(self._store, part.judged, self._judging.on_failure)
        if stored.refused:  # not judged again by this process
            refused = {waiting.number for waiting in stored.refused}
            part.samples = [waiting for waiting in part.samples if waiting.number not in refused]
        now_s = time.monotonic()
        self._judging.on_judged(stored.judged, stored.written, now_s - max(part.started_s, self._stored_s))
        self._stored_s = now_s
        if self._judging.spans is not None:
            analysis_s, storing_s = part.ended_s - part.started_s, now_s - part.ended_s
            add_verdict_spans(self._judging.spans, stored.judged, analysis_s, storing_s)

    def _leave(self, part: _Part) -> None:
        self.numbers.difference_update(waiting.number for waiting in part.samples)


def _judge_in_batches(
    judging: Callable[[Sequence[Decoded]], list[Verdict]],
    decoded: Sequence[Decoded],
    batch_size: int,
    on_progress: Callable[[], None],
) -> tuple[list[Verdict], float]:
    """Return the verdicts of all samples, judged `batch_size` at once, and the seconds they took. Blocking.

    These are the thread's own seconds where it computes and other processes use the cores, too: batches that became
    small with the load would add to it. `on_progress` is called after each `batch_size` samples.
    """
    started_s, started_cpu_s, verdicts = time.perf_counter(), time.thread_time(), list[Verdict]()
    for start in range(0, len(decoded), batch_size):
        verdicts += judging(decoded[start : start + batch_size])
        on_progress()
    seconds, own_s = time.perf_counter() - started_s, time.thread_time() - started_cpu_s
    return verdicts, own_s if own_s > COMPUTING_SHARE * seconds else seconds


def _undecided(samples: Sequence[WaitingSample], reason: str, bundle_id: str) -> _Part:
    judged = [(waiting, undecided(waiting, reason, bundle_id)) for waiting in samples]
    return _Part(bundle_id, samples, judged=judged)


def _unreadable(pair: Pair, error: Exception) -> Decoded:
    return Decoded(pair[0], error=error)
