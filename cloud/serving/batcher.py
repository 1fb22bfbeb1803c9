"""Way of stored samples from the queue to verdicts: which of them are judged next, and in which lane.

A single sample is judged at once. While a round of batches is judged, samples for the next arrive. Under load, full
batches follow one another without a gap (`cloud.serving.lane`); a smaller one waits until nothing else is judged, since
few samples cost nearly as much as many. A round starts ROUND_S after the one before, and after a pause as long as that
took, unless that was full: the more the rounds of few samples cost, the fewer there are.

Batches that take long have a lane of their own: those with large samples, and those whose analysis must be loaded
first. The others wait for none of them.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from cloud.serving.batches import Batch, batches_of
from cloud.serving.cache import AnalysisCache
from cloud.serving.isolation import Isolation
from cloud.serving.lane import Judged, Judging, Lane
from cloud.serving.verdict_writer import RETRY_MAX_S, RETRY_MIN_S
from cloud.serving.worker import Worker
from cloud.store import Store
from cloud.store.claims import release
from cloud.store.events import WrittenEvent
from cloud.store.inbox import unpack_next
from cloud.store.inbox_request import Doubles
from cloud.store.judging import WaitingSample, waiting_samples
from shared.backoff import Backoff
from shared.errors import StorageError
from shared.tracing import SampleSpans

WINDOW_BATCHES, LARGEST_BATCHES = 8, 32  # batch sizes in a window, and in the largest batch of a quick analysis
SMALLEST_BATCH = 16  # of a slow analysis; batch sizes are multiples of it
WINDOW_S = 0.25
BATCH_S = 0.2
ROUND_S = 0.05
MAX_PAUSE_S = 0.25
FRUITLESS_S = 0.1  # between two looks for samples that the slow lane does not take
POLL_S = 1.0
RELEASE_S = 0.5
FOUND_S, MAX_FOUND = 1.0, 1024  # judging bundles, by the bundle on the device
LARGE_SAMPLE_BYTES = 4 * 2**20  # decoded


class Batcher:
    """Task that judges waiting samples and stores the verdicts.

    `find_bundle` returns the id of the bundle that judges samples, given the id of the bundle that screened them, or
    None. `on_judged` receives verdicts after they are stored, with their events and the seconds they took. `on_doubles`
    receives samples that turn out to have been sent twice, `on_failure` each error that is retried. `workers` judge and
    decode batches; `slow_workers` those that take long. `spans` receives the spans of traced samples. `isolation` knows
    samples that end the process; None: there are none.
    """

    def __init__(
        self,
        store: Store,
        analyses: AnalysisCache,
        workers: tuple[Worker, Worker],
        slow_workers: tuple[Worker, Worker],
        *,
        find_bundle: Callable[[str], Awaitable[str | None]],
        batch_size: int,
        false_alarm_rate: float,
        adaptive_depth: bool = False,
        on_judged: Callable[[Judged, Sequence[WrittenEvent], float], None],
        on_doubles: Callable[[Sequence[Doubles]], None],
        on_failure: Callable[[Exception], None],
        spans: SampleSpans | None = None,
        isolation: Isolation | None = None,
    ) -> None:
        self._store = store
        self._isolation = isolation or Isolation()
        self._analyses = analyses
        self._find_bundle = find_bundle
        self._batch_size = batch_size
        self._on_doubles, self._on_failure = on_doubles, on_failure
        judging = Judging(batch_size, false_alarm_rate, adaptive_depth, on_judged, on_failure, spans, self._isolation)
        lane = partial(Lane, store, analyses, judging=judging, on_speed=self._adapt_size)
        self._lane, self._slow_lane = lane(*workers), lane(*slow_workers)
        self._woken = asyncio.Event()
        self._slow_task: asyncio.Task[None] | None = None
        self._for_slow_lane: set[int] = set()  # numbers of samples
        self._sizes: dict[str, int] = {}  # of batches, by the bundle on the device
        self._found: dict[str, tuple[float, str | None]] = {}
        self._slow_backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)

    def wake(self) -> None:
        """Start the next batch without waiting for the poll, because samples have arrived."""
        self._woken.set()

    async def run(self) -> None:
        """Judge until cancelled. Errors go to `on_failure` and are retried; waiting samples stay in the store.

        At the end another process may judge at once what this one had claimed.
        """
        lanes = [asyncio.create_task(lane.run()) for lane in (self._lane, self._slow_lane)]
        try:
            await self._feed()
        finally:
            tasks = [*lanes, *([self._slow_task] if self._slow_task is not None else [])]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            with contextlib.suppress(StorageError, TimeoutError):
                async with asyncio.timeout(RELEASE_S):
                    await release(self._store)

    async def _feed(self) -> None:
        """Submit window after window to the lanes."""
        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while True:
            try:
                started_s = time.monotonic()
                self._woken.clear()
                submitted, is_rest = await self._submit_window()
                if not submitted and is_rest:
                    await self._lane.wait_until_idle()
                elif not submitted:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._woken.wait(), POLL_S)
                    if self._slow_task is not None:  # perhaps only the slow lane's samples arrive
                        await asyncio.sleep(FRUITLESS_S)
                elif submitted < self._batch_size and not is_rest:
                    await self._lane.wait_until_idle()
                    took_s = time.monotonic() - started_s
                    await asyncio.sleep(max(ROUND_S - took_s, min(took_s, MAX_PAUSE_S)))
                backoff.reset()
            except Exception as error:
                self._on_failure(error)
                await asyncio.sleep(backoff.next_s())

    async def _submit_window(self) -> tuple[int, bool]:
        """Submit the next few batches; return their number of samples, and whether smaller batches must wait.

        When samples have arrived meanwhile, the rest of a window that takes long goes back to the queue: devices that
        sent little do not wait for those that sent much.
        """
        was_busy = self._lane.is_busy
        under_way = self._lane.numbers | self._slow_lane.numbers | self._for_slow_lane
        largest = max(self._batch_size, *self._sizes.values(), 1)
        limit = math.ceil(WINDOW_BATCHES * self._batch_size / largest) * largest  # else its end is read twice
        if doubles := await unpack_next(self._store, limit, under_way):
            self._on_doubles(doubles)
        window = await waiting_samples(self._store, limit, under_way)
        if doubtful := [item for item in window if item.sample_id in self._isolation.alone]:
            return await self._submit_alone(doubtful), False
        until_s = time.monotonic() + WINDOW_S
        slow: list[tuple[Batch, str]] = []
        submitted, is_rest = 0, False
        for batch in batches_of(window, self._batch_size, self._sizes):
            bundle_id = await self._bundle_of(batch.edge_bundle_id)
            if bundle_id is not None and self._is_slow(batch, bundle_id):
                slow.append((batch, bundle_id))
            elif was_busy and not batch.is_full:
                is_rest = True
            else:
                await self._lane.submit(batch, bundle_id)
                submitted += len(batch)
                if self._woken.is_set() and time.monotonic() > until_s:
                    break
        if slow and self._slow_task is None:
            self._for_slow_lane = {item.number for batch, _ in slow for item in batch.samples}
            self._slow_task = asyncio.create_task(self._submit_slow(slow))
        return submitted, is_rest

    async def _submit_alone(self, doubtful: Sequence[WaitingSample]) -> int:
        """Judge samples that may end the process one by one, while nothing else is judged; return their number."""
        if self._slow_task is not None:
            await asyncio.wait([self._slow_task])
        await self._slow_lane.wait_until_idle()
        for item in doubtful:
            await self._lane.wait_until_idle()
            await self._lane.submit(Batch([item], is_full=False), await self._bundle_of(item.edge_bundle_id))
            await self._lane.wait_until_idle()
            self._isolation.alone.discard(item.sample_id)
        return len(doubtful)

    async def _bundle_of(self, edge_bundle_id: str) -> str | None:
        """Return the bundle that judges a sample; a found one is asked for again after FOUND_S."""
        until_s, bundle_id = self._found.get(edge_bundle_id, (0.0, None))
        if bundle_id is None or time.monotonic() > until_s:
            bundle_id = await self._find_bundle(edge_bundle_id)
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            self._found[edge_bundle_id] = (time.monotonic() + FOUND_S, bundle_id)
        return bundle_id

    def _is_slow(self, batch: Batch, bundle_id: str) -> bool:
        is_large = any(item.decoded_bytes > LARGE_SAMPLE_BYTES for item in batch.samples)
        return is_large or not self._analyses.is_decided(bundle_id)

    async def _submit_slow(self, batches: Sequence[tuple[Batch, str]]) -> None:
        """Submit batches that take long for WINDOW_S; the rest goes back to the queue."""
        until_s = time.monotonic() + WINDOW_S
        try:
            for batch, bundle_id in batches:
                await self._slow_lane.submit(batch, bundle_id)
                if time.monotonic() > until_s:
                    break
        except Exception as error:  # the samples stay in the queue
            self._on_failure(error)
            await asyncio.sleep(self._slow_backoff.next_s())
        else:
            self._slow_backoff.reset()
        finally:
            self._for_slow_lane.clear()
            self._slow_task = None
            self._woken.set()

    def _adapt_size(self, edge_bundle_id: str, sample_s: float) -> None:
        """Let the analysis of the next batch take about BATCH_S: few reads and writes serve quick ones."""
        size = int(BATCH_S / max(sample_s, 1e-6)) // SMALLEST_BATCH * SMALLEST_BATCH
        if len(self._sizes) >= MAX_FOUND:
            self._sizes.clear()
        smallest = min(SMALLEST_BATCH, self._batch_size)
        self._sizes[edge_bundle_id] = min(max(size, smallest), LARGEST_BATCHES * self._batch_size)
