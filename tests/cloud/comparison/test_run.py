"""Real bundles judge stored samples again; a killed process is followed by another."""

import asyncio
import contextlib
import os
import signal
import time
from functools import partial

import pytest

from cloud.analysis_settings import AnalysisSettings
from cloud.comparison.figures import figures_of
from cloud.comparison.run import NO_SAMPLES, run_comparison
from cloud.service.comparisons import ComparisonRunner
from cloud.serving.analysis import load_analysis
from cloud.settings import StoreLocation
from cloud.store import comparisons
from cloud.store.comparison_samples import compared_samples
from cloud.store.comparisons import AskedSamples, Comparison, ComparisonStatus, SampleChoice
from cloud.store.judging import store_verdicts, waiting_samples
from cloud.store.labels import Label
from cloud.store.registry import Registry
from shared.samples import Decision, Verdict
from tests.cloud.comparison.stored_rows import send, send_unjudged
from tests.cloud.console.filled_store import add_devices, open_store

LABELLED = AskedSamples(SampleChoice.LABELLED, 40)
LOAD = partial(load_analysis, device="cpu", false_alarm_rate=0.01)


@pytest.fixture
async def compared(tmp_path, biopsies):
    """A store with labelled samples, and the ids of two versions of a bundle."""
    store, _ = open_store(tmp_path)
    async with store:
        registry = Registry(store, tmp_path, biopsies.key.public_key())
        pair = [(await registry.publish(bundle)).bundle_id for bundle in (biopsies.bundle, biopsies.version(2))]
        await add_devices(store, "lab-1")
        await send(store, pair[0], biopsies.anomalous[:20], Label.REAL)
        await send(store, pair[0], biopsies.normal[:20], Label.FALSE_ALARM)
        yield store, registry, pair


async def claimed(store, pair, asked: AskedSamples = LABELLED) -> Comparison:
    await comparisons.start(store, *pair, asked, actor="account:ada", now_s=time.time())
    found = await comparisons.claim(store, "a", time.time())
    assert found is not None
    return found


async def ended(store, number: int) -> Comparison:
    async with store.reading() as connection:
        found = await comparisons.one_comparison(connection, number)
    assert found is not None
    return found


async def test_both_bundles_judge_all_samples_and_find_the_labelled_anomalies(compared) -> None:
    store, registry, pair = compared
    comparison = await claimed(store, pair)
    await run_comparison(store, registry, comparison, LOAD, 0.01)
    done = await ended(store, comparison.number)
    assert (done.status, done.samples, done.judged, done.false_alarm_rate) == (ComparisonStatus.COMPLETED, 40, 40, 0.01)
    async with store.reading() as connection:
        figures = figures_of(await compared_samples(connection, comparison.number), *pair)
    assert figures.agreement.value == 1.0, "the analyzers are the same"
    assert (figures.real, figures.normal, figures.problems) == (20, 20, ())
    assert figures.first.auroc == figures.second.auroc
    assert figures.first.auroc > 0.9
    assert figures.first.latency_median_ms > 0
    async with store.reading() as connection:
        assert not await compared_samples(connection, comparison.number + 1)


async def test_live_samples_come_first(compared, biopsies) -> None:
    store, registry, pair = compared
    comparison = await claimed(store, pair)
    await send_unjudged(store, pair[0], biopsies.normal[30:31], time.time() - 60)
    running = asyncio.create_task(run_comparison(store, registry, comparison, LOAD, 0.01))
    async with asyncio.timeout(30):
        while not (await ended(store, comparison.number)).waits_for_live:
            await asyncio.sleep(0.05)
    assert (await ended(store, comparison.number)).judged == 0
    for item in await waiting_samples(store, 10):
        verdict = Verdict(sample_id=item.sample_id, decision=Decision.NORMAL, p_value=0.5, bundle_id=pair[0])
        await store_verdicts(store, [(item, verdict)])
    await running
    done = await ended(store, comparison.number)
    assert (done.status, done.waits_for_live) == (ComparisonStatus.COMPLETED, False)


async def test_a_bundle_that_is_gone_and_an_empty_choice_end_with_a_sentence(compared) -> None:
    store, registry, pair = compared
    none = await claimed(store, pair, AskedSamples(SampleChoice.NEWEST, 5, until_s=1.0))
    await run_comparison(store, registry, none, LOAD, 0.01)
    found = await ended(store, none.number)
    assert (found.status, found.reason) == (ComparisonStatus.FAILED, NO_SAMPLES)
    (await registry.archive(pair[1])).unlink()
    gone = await claimed(store, pair)
    await run_comparison(store, registry, gone, LOAD, 0.01)
    found = await ended(store, gone.number)
    assert found.status is ComparisonStatus.FAILED
    assert f"{pair[1]} cannot be loaded" in found.reason


@pytest.mark.system
async def test_a_killed_process_is_followed_by_another_and_a_cancelled_one_ends(compared, biopsies, tmp_path) -> None:
    store, _, pair = compared
    runner = ComparisonRunner(
        store, AnalysisSettings(device="cpu"), StoreLocation(tmp_path), biopsies.key.public_key(), print
    )
    first = await comparisons.start(store, *pair, LABELLED, actor="account:ada", now_s=time.time())
    task = asyncio.create_task(runner.run())
    try:
        async with asyncio.timeout(120):
            while runner.pid is None:
                await asyncio.sleep(0.05)
            os.kill(runner.pid, signal.SIGKILL)
            while (await ended(store, first.number)).status in comparisons.UNFINISHED:
                await asyncio.sleep(0.1)
            done = await ended(store, first.number)
            assert (done.status, done.judged) == (ComparisonStatus.COMPLETED, 40), done.reason
            second = await comparisons.start(store, *pair, LABELLED, actor="account:ada", now_s=time.time())
            while (await ended(store, second.number)).status is ComparisonStatus.WAITING or runner.pid is None:
                await asyncio.sleep(0.05)
            await comparisons.cancel(store, second.number, actor="account:ada", now_s=time.time())
            while runner.pid is not None:
                await asyncio.sleep(0.05)
            assert (await ended(store, second.number)).status is ComparisonStatus.CANCELLED
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
