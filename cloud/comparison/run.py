"""Judging of the samples of one comparison with both bundles.

Answers are stored after each small batch, so a process that is killed loses one batch at most. Before a batch, samples
of devices that wait for their verdict come first.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from cloud.serving.ports import Judge
from cloud.serving.verdicts import Decoded, decode_batch, judge_batch
from cloud.store.comparison_samples import (
    Answer,
    choose,
    live_samples_wait,
    next_samples,
    note_waiting,
    save_answers,
)
from cloud.store.comparisons import Comparison, ComparisonStatus, finish
from cloud.store.contents import load_payloads
from cloud.store.engine import Store
from cloud.store.judging import WaitingSample
from cloud.store.registry import Registry
from shared.bundle import Bundle
from shared.errors import BundleError, VedetteError
from shared.logs import EventLog
from shared.samples import Verdict

BATCH = 8  # samples between two looks for live ones
LIVE_S, POLL_S = 1.0, 0.5  # live samples that wait longer come first
NO_SAMPLES = (
    "No stored sample fits: samples of this name with a payload are needed, and labelled ones if these were asked for. "
    "Choose a longer time, or label samples in the review."
)
_LOG = EventLog("comparison")


async def run_comparison(
    store: Store,
    registry: Registry,
    comparison: Comparison,
    load: Callable[[Bundle], Judge],
    false_alarm_rate: float,
    *,
    live_s: float | None = LIVE_S,
) -> None:
    """Judge what is left of a claimed comparison, and end it unless its claim is lost; raises StorageError.

    `load` makes the analysis of a bundle and blocks. A live sample that waits longer than `live_s` seconds comes first;
    None where no service judges live samples.
    """
    number, runner = comparison.number, comparison.runner
    count = comparison.samples
    if count is None:
        count = await choose(store, comparison, false_alarm_rate)
    if not count:
        await finish(store, number, runner, ComparisonStatus.FAILED, NO_SAMPLES, time.time())
        return
    judges: list[tuple[str, Judge]] = []
    for bundle_id in (comparison.first_bundle_id, comparison.second_bundle_id):
        try:
            judges.append((bundle_id, await asyncio.to_thread(load, await registry.bundle(bundle_id))))
        except BundleError as error:
            reason = f"{bundle_id} cannot be loaded: {error}"
            await finish(store, number, runner, ComparisonStatus.FAILED, reason, time.time())
            return
        except VedetteError:
            raise
        except Exception as error:
            _LOG.error("bundle_not_loaded", bundle=bundle_id, error=f"{type(error).__name__}: {error}")
            reason = f"{bundle_id} cannot be loaded ({type(error).__name__}): see the log of the service."
            await finish(store, number, runner, ComparisonStatus.FAILED, reason, time.time())
            return
    while await _judge_next(store, number, runner, judges, false_alarm_rate, live_s):
        pass
    await finish(store, number, runner, ComparisonStatus.COMPLETED, "", time.time())


async def _judge_next(
    store: Store,
    number: int,
    runner: str,
    judges: Sequence[tuple[str, Judge]],
    false_alarm_rate: float,
    live_s: float | None,
) -> bool:
    """Judge the next samples, after live ones; return False if there were none, or the claim is lost."""
    if live_s is not None:
        await _wait_for_live(store, number, live_s)
    async with store.reading() as connection:
        waiting = await next_samples(connection, number, BATCH)
    if not waiting:
        return False
    started_s = time.monotonic()
    answers = await answers_of(store, waiting, judges, false_alarm_rate)
    rows = [(item.number, first, second) for item, first, second in zip(waiting, *answers, strict=True)]
    return await save_answers(store, number, runner, rows, time.monotonic() - started_s)


async def _wait_for_live(store: Store, number: int, live_s: float) -> None:
    is_noted = False
    while True:
        async with store.reading() as connection:
            if not await live_samples_wait(connection, time.time() - live_s):
                return
        if not is_noted:
            await note_waiting(store, number)
            is_noted = True
        await asyncio.sleep(POLL_S)


async def answers_of(
    store: Store, batch: Sequence[WaitingSample], judges: Sequence[tuple[str, Judge]], false_alarm_rate: float
) -> list[list[Answer]]:
    """Return the answers of each bundle on a batch of stored samples. `judges`: id and analysis of each bundle."""
    payloads = await load_payloads(store, [item.number for item in batch])
    decoded = await asyncio.to_thread(decode_batch, [(item, payloads.get(item.number)) for item in batch])
    return [
        await asyncio.to_thread(_answers_by, judge, decoded, bundle_id, false_alarm_rate) for bundle_id, judge in judges
    ]


def _answers_by(judge: Judge, decoded: Sequence[Decoded], bundle_id: str, false_alarm_rate: float) -> list[Answer]:
    """Return the answers of one bundle; the time of a batch is shared by its samples. Blocking."""
    started_s = time.perf_counter()
    found = judge_batch(judge, decoded, bundle_id=bundle_id, false_alarm_rate=false_alarm_rate)
    latency_ms = 1000 * (time.perf_counter() - started_s) / max(1, len(decoded))
    return [_answer(verdict, latency_ms) for verdict in found]


def _answer(verdict: Verdict, latency_ms: float) -> Answer:
    return Answer(verdict.p_value, verdict.decision, latency_ms)
