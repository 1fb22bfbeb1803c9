"""Comparisons in the store: one at a time, renewed, taken over, lost, cancelled, and bounded."""

import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from sqlalchemy import update

from cloud.store import comparisons
from cloud.store.comparison_samples import (
    Answer,
    choose,
    compared_samples,
    live_samples_wait,
    next_samples,
    save_answers,
)
from cloud.store.comparisons import AskedSamples, Comparison, ComparisonStatus, SampleChoice
from cloud.store.ingest import Received, store_samples
from cloud.store.judging import store_verdicts, waiting_samples
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.registry import Registry
from cloud.store.schema import comparisons as comparison_table
from shared.bundle import sign
from shared.errors import BundleError
from shared.modality import Modality
from shared.samples import Decision, Route, Sample, Screening, Verdict, new_sample_id
from shared.wire import encode_payload
from tests.cloud.console.filled_store import DOOR, KEY, SHUTTLE, manifest

ASKED = AskedSamples(SampleChoice.NEWEST, 3)
Start = Callable[..., Awaitable[Comparison]]


@pytest.fixture
async def pair(store, tmp_path) -> list[str]:
    """Ids of two bundles of one name, and of one of another."""
    registry = Registry(store, tmp_path, KEY.public_key())
    made = (manifest(SHUTTLE, 1), manifest(SHUTTLE, 2), manifest(DOOR, 1))
    return [(await registry.publish(sign(each, {"edge/note.json": b"{}"}, KEY))).bundle_id for each in made]


@pytest.fixture
def start(store, pair) -> Start:
    async def start(asked: AskedSamples = ASKED, now_s: float = 0.0) -> Comparison:
        return await comparisons.start(store, *pair[:2], asked, actor="account:ada", now_s=now_s)

    return start


async def one(store, number: int) -> Comparison:
    async with store.reading() as connection:
        found = await comparisons.one_comparison(connection, number)
    assert found is not None
    return found


async def let_run_out(store) -> None:
    """Let the claims of all processes end."""
    async with store.writing() as connection:
        await connection.execute(update(comparison_table).values(runner_until_s=1.0))


async def judged(store, bundle_id: str, count: int, label: Label | None = None) -> None:
    """Samples that a bundle screened, with verdicts."""
    values = np.arange(3, dtype=np.float32)
    received = [
        Received(
            Sample(new_sample_id(), "lab", Modality.TABULAR, time.time(), "row", values),
            Screening(1.0, 0.01, False, Route.FORWARD, bundle_id, "cal", "int8"),
            encode_payload(values, Modality.TABULAR),
        )
        for _ in range(count)
    ]
    await store_samples(store, "one", received, time.time())
    waiting = await waiting_samples(store, 100)
    verdict = {"decision": Decision.NORMAL, "p_value": 0.5, "bundle_id": bundle_id}
    await store_verdicts(store, [(item, Verdict(sample_id=item.sample_id, **verdict)) for item in waiting])
    if label is not None:
        for item in received:
            await add_label(store, item.sample.sample_id, NewLabel(label, "ada"), "account:ada")


async def test_only_bundles_of_one_name_are_compared_and_few_wait(store, pair, start) -> None:
    for bundle_ids in ((pair[0], pair[2]), (pair[0], pair[0]), (pair[0], "none")):
        with pytest.raises(BundleError):
            await comparisons.start(store, *bundle_ids, ASKED, actor="account:ada", now_s=0.0)
    for _ in range(comparisons.MAX_UNFINISHED):
        await start()
    with pytest.raises(comparisons.TooManyComparisonsError, match="cancel one"):
        await start()


async def test_one_is_judged_at_a_time_and_another_process_goes_on(store, start) -> None:
    first, second = await start(), await start()
    claimed = await comparisons.claim(store, "a", 10.0)
    assert claimed is not None
    assert (claimed.number, claimed.status, claimed.runner) == (first.number, ComparisonStatus.RUNNING, "a")
    assert await comparisons.claim(store, "b", 9e12) is None, "one at a time, whatever the clock of a process says"
    await let_run_out(store)
    assert await comparisons.renew(store, first.number, "a")
    assert await comparisons.claim(store, "b", 9e12) is None, "it has been renewed"
    await let_run_out(store)
    taken = await comparisons.claim(store, "b", 30.0)
    assert taken is not None
    assert (taken.number, taken.attempts, taken.started_at_s) == (first.number, 2, 10.0)
    assert not await comparisons.renew(store, first.number, "a"), "the first process must stop"
    await comparisons.finish(store, first.number, "a", ComparisonStatus.COMPLETED, "", 61.0)
    assert (await one(store, first.number)).status is ComparisonStatus.RUNNING, "it has no say any more"
    await comparisons.finish(store, first.number, "b", ComparisonStatus.COMPLETED, "", 62.0)
    following = await comparisons.claim(store, "b", 63.0)
    assert following is not None
    assert following.number == second.number


async def test_one_that_ends_its_process_again_and_again_is_lost(store, start) -> None:
    first, second = await start(), await start()
    for attempt in range(comparisons.MAX_ATTEMPTS):
        assert await comparisons.claim(store, "a", float(attempt))
    following = await comparisons.claim(store, "a", 10.0)
    assert following is not None
    assert following.number == second.number
    lost = await one(store, first.number)
    assert (lost.status, lost.ended_at_s) == (ComparisonStatus.LOST, 10.0)
    assert "ended 3 times" in lost.reason


async def test_a_process_may_judge_one_comparison_alone(store, start) -> None:
    older, own = await start(), await start()
    claimed = await comparisons.claim(store, "a", 1.0, own.number)
    assert claimed is not None
    assert claimed.number == own.number
    assert await comparisons.claim(store, "b", 1.0, older.number) is None, "one at a time"
    await comparisons.finish(store, own.number, "a", ComparisonStatus.COMPLETED, "", 2.0)
    assert await comparisons.claim(store, "a", 3.0, own.number) is None
    assert (await one(store, older.number)).status is ComparisonStatus.WAITING


async def test_a_claim_counts_until_it_runs_out_or_the_comparison_ends(store, start) -> None:
    async def is_one_judged() -> bool:
        async with store.reading() as connection:
            return await comparisons.is_one_judged(connection)

    number = (await start()).number
    assert not await is_one_judged()
    await comparisons.claim(store, "a", 0.0)
    assert await is_one_judged()
    await let_run_out(store)
    assert not await is_one_judged()
    assert await comparisons.renew(store, number, "a")
    assert await is_one_judged()
    await comparisons.finish(store, number, "a", ComparisonStatus.COMPLETED, "", 1.0)
    assert not await is_one_judged()


async def test_a_cancelled_one_is_not_judged_on(store, start) -> None:
    number = (await start()).number
    assert await comparisons.claim(store, "a", 0.0)
    cancelled = await comparisons.cancel(store, number, actor="account:ada", now_s=1.0)
    assert cancelled is not None
    assert cancelled.status is ComparisonStatus.CANCELLED
    assert not await comparisons.renew(store, number, "a")
    with pytest.raises(BundleError, match="cancelled already"):
        await comparisons.cancel(store, number, actor="account:ada", now_s=3.0)
    assert await comparisons.cancel(store, 99, actor="account:ada", now_s=3.0) is None
    assert await comparisons.claim(store, "a", 4.0) is None


async def test_samples_are_those_of_the_name_and_answers_are_kept(store, pair, start) -> None:
    await judged(store, pair[0], 2)
    await judged(store, pair[2], 2)
    await judged(store, pair[1], 2, Label.REAL)
    number = (await start()).number
    comparison = await comparisons.claim(store, "a", 0.0)
    assert comparison is not None
    assert await choose(store, comparison, 0.01) == 3, "the newest three of the name"
    async with store.reading() as connection:
        waiting = await next_samples(connection, number, 2)
    answers = Answer(0.5, Decision.NORMAL, 2.0), Answer(None, Decision.UNDECIDED, 3.0)
    await save_answers(store, number, "a", [(item.number, *answers) for item in waiting], 4.0)
    seen = await one(store, number)
    assert (seen.samples, seen.judged, seen.remaining_s, seen.attempts) == (3, 2, 2.0, 0)
    async with store.reading() as connection:
        found = await compared_samples(connection, number)
        (left,) = await next_samples(connection, number, 9)
    assert {(item.first, item.second) for item in found} == {answers}
    assert left.number not in {item.sample_number for item in found}
    labels = [item.label for item in found]
    assert labels.count(Label.REAL) == 1


async def test_a_process_that_has_lost_its_claim_stores_nothing(store, pair, start) -> None:
    await judged(store, pair[0], 2)
    number = (await start()).number
    late = await comparisons.claim(store, "a", 0.0)
    await let_run_out(store)
    comparison = await comparisons.claim(store, "b", 0.0)
    assert late is not None
    assert comparison is not None
    assert (await choose(store, late, 0.01), await choose(store, comparison, 0.01)) == (0, 2)
    async with store.reading() as connection:
        waiting = await next_samples(connection, number, 2)
    rows = [(item.number, *[Answer(0.5, Decision.NORMAL, 2.0)] * 2) for item in waiting]
    assert not await save_answers(store, number, "a", rows, 1.0)
    seen = await one(store, number)
    assert (seen.judged, seen.judging_s, seen.attempts) == (0, 0.0, 2)
    assert await save_answers(store, number, "b", rows, 1.0)
    await comparisons.cancel(store, number, actor="account:ada", now_s=0.0)
    assert not await save_answers(store, number, "b", rows, 1.0)
    assert ((await one(store, number)).judged, (await one(store, number)).judging_s) == (2, 1.0)


async def test_labelled_samples_are_chosen_evenly(store, pair, start) -> None:
    await judged(store, pair[0], 3, Label.REAL)
    await judged(store, pair[0], 1, Label.FALSE_ALARM)
    await judged(store, pair[0], 2, Label.UNSURE)
    await start(AskedSamples(SampleChoice.LABELLED, 4))
    comparison = await comparisons.claim(store, "a", 0.0)
    assert comparison is not None
    assert await choose(store, comparison, 0.01) == 3, "two real ones and the only false alarm"
    await comparisons.finish(store, comparison.number, "a", ComparisonStatus.COMPLETED, "", 1.0)
    await start(AskedSamples(SampleChoice.NEWEST, 9, since_s=time.time() + 60))
    later = await comparisons.claim(store, "a", 0.0)
    assert later is not None
    assert await choose(store, later, 0.01) == 0


async def test_live_samples_that_wait_are_seen(store, add) -> None:
    async def wait(since_s: float) -> bool:
        async with store.reading() as connection:
            return await live_samples_wait(connection, since_s)

    assert not await wait(time.time() + 60)
    await add(count=2)
    assert await wait(time.time() + 60)
    assert not await wait(time.time() - 60), "they have just arrived"
    await waiting_samples(store, 10)


async def test_only_the_newest_are_kept(store, start, monkeypatch) -> None:
    monkeypatch.setattr(comparisons, "MAX_KEPT", 2)
    for _ in range(4):
        number = (await start()).number
        await comparisons.cancel(store, number, actor="account:ada", now_s=0.0)
    await start()
    async with store.reading() as connection:
        kept = await comparisons.comparison_page(connection)
    assert [each.status for each in kept] == [ComparisonStatus.WAITING, *[ComparisonStatus.CANCELLED] * 2]
