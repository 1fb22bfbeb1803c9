"""Mutes hide the items of a pattern until a time, never a verdict, and never one far below the pattern."""

import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from sqlalchemy import insert, update

from cloud.service.notices.feed import feed_verdicts
from cloud.store import open_store
from cloud.store.labels import KeyReusedError, Label, NewLabel, add_label
from cloud.store.outbox import due
from cloud.store.queries import verdict_rows
from cloud.store.review import mutes as mutes_module
from cloud.store.review.builder import build_items
from cloud.store.review.counts import density, left_counts
from cloud.store.review.decisions import Decider, NewDecision, decide
from cloud.store.review.grouping import Asking
from cloud.store.review.item_filter import ItemFilter, ItemState
from cloud.store.review.items import ItemOrder, item_page
from cloud.store.review.mute_preview import NoPatternError, at_scope, pattern_of, preview_mute
from cloud.store.review.mutes import (
    DAY_S,
    HidesRealError,
    MuteEndedError,
    NewMute,
    TooManyMutesError,
    UnknownMuteError,
    end_mute,
    hidden_counts,
    make_mute,
    mute_page,
    remove_old_mutes,
    resume_mute,
)
from cloud.store.review.muting import ActiveMute, MuteIndex, MuteReader, MuteScope, Pattern
from cloud.store.review.severity import Severity
from cloud.store.review.signature import Signature, likeness, map_vector, share_vector
from cloud.store.schema import devices, mutes, review_items
from shared.modality import Modality
from shared.samples import Decision
from tests.cloud.store.backends import only_sqlite
from tests.cloud.store.review.judged import START_S, Judged, judge
from tests.cloud.store.test_queries import plans_of

ADA = Decider("ada", "account:ada")
HOT = (("temperature", 0.9), ("speed", 0.1))
FAST = (("speed", 0.9), ("temperature", 0.1))
SOURCE = NewMute(1, MuteScope.SOURCE)


def hot(at_s: float, **facts) -> Judged:
    return Judged(at_s, **({"contributions": HOT, "bundle_id": "press-1-00000000"} | facts))


async def listed(store, **wanted) -> list[int]:
    async with store.reading() as connection:
        found = await item_page(connection, ItemFilter(**({"state": ItemState.ALL} | wanted)), ItemOrder.OLDEST)
    return [item.number for item in found.items]


async def called_false(store, *wanted: Judged, item: int = 1) -> None:
    await judge(store, *wanted)
    await build_items(store)
    await decide(store, NewDecision(Label.FALSE_ALARM, {item: 0}), ADA)


async def test_a_mute_hides_its_pattern_alone_and_changes_no_verdict(store):
    await called_false(store, hot(0))
    mute = await make_mute(store, SOURCE, ADA)
    numbers = await judge(
        store,
        hot(1000, bundle_id="press-2-11111111"),  # the next version of the bundle
        hot(2000, contributions=FAST),
        hot(3000, p_value=0.0003),  # more than 10 times below the pattern
        hot(4000, source_id="yard"),
        hot(5000, device_id="two"),
        hot(6000, bundle_id="lathe-1-00000000"),
        hot(7000, contributions=()),
        hot(8000, p_value=0.0005),
    )
    counts = await build_items(store)
    assert counts.hidden == 2
    assert await listed(store, is_muted=True) == [2, 9]
    assert await listed(store) == [1, 3, 4, 5, 6, 7, 8]
    async with store.reading() as connection:
        left = await left_counts(connection, ItemFilter())
        (stored,) = await mute_page(connection)
        hidden = await hidden_counts(connection, [mute.number], START_S + 9000)
        rows = await verdict_rows(connection, numbers)
        assert sum(bucket.items for bucket in await density(connection, ItemFilter(), START_S, START_S + 9e3, 9e3)) == 6
    assert (sum(left.by_severity.values()), left.muted) == (6, 2)
    assert (stored.hidden_items, stored.hidden_verdicts) == (2, 2)
    assert (hidden[1].day, hidden[1].week, hidden[1].real) == (2, 2, 0)
    assert {row.decision for row in rows.values()} == {Decision.ANOMALOUS}


async def test_a_hidden_verdict_joins_hidden_items_alone(store):
    await called_false(store, hot(0))
    await make_mute(store, SOURCE, ADA)
    await judge(store, hot(1000), hot(1010, contributions=FAST), hot(1020), hot(1030, contributions=FAST))
    await build_items(store)
    async with store.reading() as connection:
        found = await item_page(connection, ItemFilter(is_muted=True), ItemOrder.OLDEST)
        shown = await item_page(connection, ItemFilter(), ItemOrder.OLDEST)
    assert [(item.verdicts, item.muted_by) for item in found.items] == [(2, 1)]
    assert [(item.verdicts, item.muted_by) for item in shown.items] == [(2, None)]


async def test_the_preview_shows_what_a_mute_would_have_hidden_and_reals_are_asked(store):
    old = hot(-8 * DAY_S, judged_at_s=-8 * DAY_S, received_s=-8 * DAY_S)
    await judge(store, old, hot(100), hot(1000), hot(2000, contributions=FAST), hot(3000), hot(4000, source_id="yard"))
    await build_items(store)
    await decide(store, NewDecision(Label.FALSE_ALARM, {2: 0}), ADA)
    async with store.reading() as connection:
        pattern = await pattern_of(connection, 2, MuteScope.SOURCE)
        preview = await preview_mute(connection, pattern)
        of_device = await preview_mute(connection, at_scope(pattern, MuteScope.DEVICE))
    assert (preview.items, preview.compared, preview.hidden, preview.real) == (4, 4, (5, 3, 2), ())
    assert preview.left == (5, 3)
    assert of_device.hidden == (6, 5, 3, 2)
    await decide(store, NewDecision(Label.REAL, {5: 0}), ADA)
    async with store.reading() as connection:
        (row,) = (await item_page(connection, ItemFilter(state=ItemState.LEFT), ItemOrder.NEWEST, size=1)).items
    await add_label(store, row.cover.sample_id, NewLabel(Label.MISSED, "ada"), "a")
    with pytest.raises(HidesRealError, match="2 items that were called real") as refused:
        await make_mute(store, replace(SOURCE, item=2, scope=MuteScope.DEVICE), ADA)
    assert 5 in refused.value.preview.real
    made = await make_mute(store, replace(SOURCE, item=2, accepts_real=True), ADA)
    assert await listed(store, is_muted=True) == [3]  # nobody has decided it
    assert (made.hidden_items, made.hidden_verdicts) == (1, 1)


async def test_a_mute_ends_at_its_time_and_by_hand_with_undo(store, monkeypatch):
    await called_false(store, hot(0))
    await make_mute(store, SOURCE, ADA)
    await judge(store, hot(1000), hot(2000))
    await build_items(store)
    await decide(store, NewDecision(Label.REAL, {2: 0}), ADA)
    assert await listed(store) == [1, 2]  # a decided item is shown
    ended, shown = await end_mute(store, 1, ADA)
    assert (ended.ended_by, shown, await listed(store)) == ("ada", 1, [1, 2, 3])
    with pytest.raises(MuteEndedError):
        await end_mute(store, 1, ADA)
    await judge(store, hot(2010))  # it does not join what was hidden once, so an undo hides no more than before
    await build_items(store)
    assert await listed(store) == [1, 2, 3, 4]
    _, hidden = await resume_mute(store, 1, ADA)
    assert (hidden, await listed(store), await listed(store, is_muted=True)) == (1, [1, 2, 4], [3])
    with pytest.raises(UnknownMuteError):
        await end_mute(store, 99, ADA)
    over = time.time() + 8 * DAY_S
    monkeypatch.setattr("cloud.store.review.builder.time.time", lambda: over)
    await judge(store, hot(3000))
    await build_items(store)
    assert await listed(store) == [1, 2, 4, 5]
    assert await listed(store, is_muted=True) == [3]  # what it hid stays where it is
    with pytest.raises(MuteEndedError):
        await resume_mute(store, 1, ADA)


async def test_a_mute_of_another_process_acts_in_the_next_run(store, location):
    await called_false(store, hot(0))
    reader = MuteReader()
    async with store.reading() as connection:
        assert not len(await reader.active(connection, time.time()))
    async with open_store(location) as console:
        await make_mute(console, SOURCE, ADA)
    await judge(store, hot(1000))
    assert (await build_items(store, mute_reader=reader)).hidden == 1
    async with open_store(location) as console:
        await end_mute(console, 1, ADA)
    await judge(store, hot(2000))
    assert (await build_items(store, mute_reader=reader)).hidden == 0


@only_sqlite
async def test_mutes_that_are_over_are_not_read(store):
    await called_false(store, hot(0))
    await make_mute(store, SOURCE, ADA)
    async with store.reading() as connection:
        plans = await plans_of(connection, partial(MuteReader().active, connection, time.time()))
    assert {step for steps in plans.values() for step in steps} == {
        "SEARCH mutes USING INDEX ix_mutes_expires_at_s (expires_at_s>?)"
    }


class Sink:
    """Sink that wants every verdict."""

    sink, wants_verdicts, decisions = "sink", True, tuple(Decision)
    sites = groups = ()


async def delivered(store) -> list[str]:
    found = [item.message["origin"] for item in await due(store, "sink", time.time(), 100)]
    return sorted(found)


async def test_no_notice_of_a_hidden_verdict_is_sent_and_the_feed_waits_for_the_items(store):
    now_s = time.time()
    await feed_verdicts(store, Sink(), now_s - 10_000)
    await called_false(store, hot(0, origin="first", judged_at_s=now_s - START_S - 40))
    await make_mute(store, SOURCE, ADA)
    await judge(
        store,
        hot(1000, origin="like it", judged_at_s=now_s - START_S - 30),
        hot(2000, origin="other", contributions=FAST, judged_at_s=now_s - START_S - 20),
    )
    await feed_verdicts(store, Sink(), now_s)
    assert await delivered(store) == ["first"]  # nobody knows yet whether the others are hidden
    await build_items(store)
    await feed_verdicts(store, Sink(), now_s)
    assert await delivered(store) == ["first", "other"]
    await judge(store, hot(3000, origin="late", judged_at_s=now_s - START_S - 10))
    await feed_verdicts(store, Sink(), now_s + 100)
    assert await delivered(store) == ["first", "late", "other"]  # the items did not follow for too long


async def test_refusals_leave_nothing(store, monkeypatch):
    await judge(store, hot(0), hot(1000, contributions=()), hot(2000, modality=Modality.IMAGE, place=None))
    await build_items(store, with_place=["image"])
    with pytest.raises(NoPatternError, match="decide the item first"):
        await make_mute(store, SOURCE, ADA)
    await decide(store, NewDecision(Label.FALSE_ALARM, {1: 0, 2: 0, 3: 0}), ADA)
    for item in (2, 3):
        with pytest.raises(NoPatternError, match="has no pattern"):
            await make_mute(store, replace(SOURCE, item=item), ADA)
    with pytest.raises(NoPatternError) as gone:
        await make_mute(store, replace(SOURCE, item=4711), ADA)
    assert gone.value.is_unknown
    elsewhere = replace(ADA, sites=("elsewhere",))
    with pytest.raises(NoPatternError, match="may have expired"):
        await make_mute(store, SOURCE, elsewhere)
    with pytest.raises(NoPatternError, match="for single sites"):
        await make_mute(store, replace(SOURCE, scope=MuteScope.BUNDLE), replace(ADA, sites=("default",)))
    keyed = replace(ADA, client_key="k")
    first = await make_mute(store, SOURCE, keyed)
    assert (await make_mute(store, SOURCE, keyed)).number == first.number
    with pytest.raises(KeyReusedError):
        await make_mute(store, replace(SOURCE, note="x"), keyed)
    with pytest.raises(KeyReusedError):
        await make_mute(store, replace(SOURCE, days=8.0), keyed)
    monkeypatch.setattr(mutes_module, "MAX_MUTES", 1)
    with pytest.raises(TooManyMutesError):
        await make_mute(store, replace(SOURCE, scope=MuteScope.SITE), ADA)
    assert (await make_mute(store, replace(SOURCE, scope=MuteScope.BUNDLE), ADA)).pattern.site == ""
    with pytest.raises(UnknownMuteError):
        await end_mute(store, first.number, elsewhere)
    async with store.writing() as connection:
        await connection.execute(update(mutes).values(expires_at_s=1.0))
    assert await remove_old_mutes(store) == 2
    async with store.reading() as connection:
        assert await mute_page(connection) == ()


async def test_a_picture_is_known_by_the_place_of_its_deviation(store):
    image = {"modality": Modality.IMAGE, "contributions": (), "bundle_id": "cam-1-00000000"}
    await judge(store, hot(0, place=(1, 1), **image))
    await build_items(store, with_place=["image"])
    await decide(store, NewDecision(Label.FALSE_ALARM, {1: 0}), ADA)
    await make_mute(store, replace(SOURCE, scope=MuteScope.SITE), ADA)
    await judge(store, hot(1000, place=(1, 1), device_id="two", **image), hot(2000, place=(6, 1), **image))
    await build_items(store, with_place=["image"])
    assert await listed(store, is_muted=True) == [2]


async def test_a_decided_item_under_a_new_cover_keeps_the_signature_of_its_cover(store):
    await judge(store, hot(0), hot(10, contributions=FAST, p_value=1e-3))
    await build_items(store)
    async with store.reading() as connection:
        pattern = await pattern_of(connection, 1, MuteScope.SOURCE, needs_decision=False)
    assert max(pattern.vector, key=pattern.vector.__getitem__) == "speed"
    await judge(store, hot(20, contributions=(), p_value=5e-4))
    await build_items(store)
    async with store.reading() as connection:
        with pytest.raises(NoPatternError, match="has no pattern"):
            await pattern_of(connection, 1, MuteScope.SOURCE, needs_decision=False)


def test_signatures_tell_place_and_side():
    cells = np.zeros((40, 60), np.uint8)
    cells[:10, :10] = 255
    other = np.zeros((40, 60), np.uint8)
    other[30:, 50:] = 255
    assert map_vector(np.full((9, 9), 200, np.uint8)) is None
    assert likeness(map_vector(cells), map_vector(other)) == 0.0
    assert likeness(map_vector(cells), map_vector(cells[::2, ::2])) == pytest.approx(1.0, abs=1e-3)
    above, below = share_vector(HOT, {"temperature": "+"}), share_vector(HOT, {"temperature": "-"})
    assert likeness(above, below) < 0.05
    assert share_vector(HOT) == pytest.approx({"temperature": 0.99388, "speed": 0.11043})
    assert share_vector([("a", float("nan")), ("b", 0.0)]) is None


def test_ten_thousand_mutes_cost_a_verdict_only_those_of_its_place():
    rng = np.random.default_rng(0)
    vectors = [{f"{place}": float(value) for place, value in enumerate(rng.random(64))} for _ in range(100)]
    active = [
        ActiveMute(
            number,
            Pattern(MuteScope.SITE, f"s{number % 100}", "", "", "cam", "image", 1, vectors[number // 100], 0.99, 1e-3),
            9e9,
        )
        for number in range(10_000)
    ]
    index = MuteIndex(active)
    vector = {name: value / 10 for name, value in vectors[7].items()}
    scale = sum(value * value for value in vector.values()) ** 0.5
    signed = Signature("cam", "image", {name: value / scale for name, value in vector.items()})
    asking = Asking(1, "d", "lab", "image", Severity.ALARM, 0.0, 0.0, 1e-3, signature=signed)
    assert index.find(asking, "s3") == min(
        mute.number
        for mute in active
        if mute.number % 100 == 3 and likeness(mute.pattern.vector, signed.vector) >= 0.99
    )
    began_s = time.process_time()
    for _ in range(200):
        index.find(asking, "s3")
    assert (time.process_time() - began_s) / 200 < 2e-3
    assert index.at(9.1e9).find(asking, "s3") is None


async def test_items_of_before_are_counted_as_not_compared(store):
    await called_false(store, hot(0))
    async with store.writing() as connection:
        row = {column.name: None for column in review_items.c}
        row |= {"number": 2, "device_id": "one", "source_id": "lab", "modality": "tabular", "severity": "alarm"}
        row |= {"first_at_s": time.time(), "last_at_s": time.time(), "judged_at_s": 1.0, "last_judged_at_s": 1.0}
        row |= {"verdicts": 1, "p_value": 0.1, "cover": 99, "origin": "", "decision_number": 0}
        await connection.execute(insert(review_items).values(row))
        await connection.execute(update(devices).values(site="plant"))
    async with store.reading() as connection:
        preview = await preview_mute(connection, await pattern_of(connection, 1, MuteScope.SITE))
    assert (preview.items, preview.compared, preview.hidden) == (2, 1, (1,))
