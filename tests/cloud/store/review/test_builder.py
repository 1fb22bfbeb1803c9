"""Review items follow the verdicts: grouped in time and place, resumable, idempotent, on both back ends."""

import time

import pytest
from sqlalchemy import func, select

from cloud.store.labels import Label
from cloud.store.removal import begin_removal, delete_data
from cloud.store.retention import remove_old
from cloud.store.review import builder
from cloud.store.review.builder import SETTLED_S, build_items
from cloud.store.review.decisions import Decider, NewDecision, decide
from cloud.store.review.item_filter import ItemFilter, ItemState
from cloud.store.review.items import ItemOrder, StoredItem, item_page, member_rows
from cloud.store.review.marks import mark
from cloud.store.review.progress import review_version
from cloud.store.review.removal import remove_expired
from cloud.store.review.severity import Severity
from cloud.store.schema import review_items, review_members
from shared.modality import Modality
from shared.samples import Decision, Route
from tests.cloud.store.review.judged import START_S, Judged, judge

ADA = Decider("ada", "account:ada")


async def listed(store, **wanted) -> list[StoredItem]:
    """All items, the oldest first."""
    async with store.reading() as connection:
        found = await item_page(
            connection, ItemFilter(**({"state": ItemState.ALL} | wanted)), ItemOrder.OLDEST, size=200
        )
    return list(found.items)


async def members(store, item: int) -> list[int]:
    async with store.reading() as connection:
        return [row.number for row in await member_rows(connection, item, 1000)]


async def test_verdicts_of_a_source_are_one_item_until_a_minute_is_quiet(store):
    one = await judge(store, Judged(0), Judged(50, p_value=2e-5), Judged(100), Judged(161))
    other = await judge(store, Judged(30, source_id="yard"), Judged(40, device_id="two"))
    await judge(store, Judged(20, decision=Decision.NORMAL))
    counts = await build_items(store)
    assert (counts.verdicts, counts.items) == (6, 4)
    items = await listed(store)
    assert [await members(store, item.number) for item in items] == [one[:3], [other[0]], [other[1]], [one[3]]]
    first = items[0]
    assert (first.verdicts, first.first_at_s, first.last_at_s) == (3, START_S, START_S + 100)
    assert (first.severity, first.p_value, first.cover.number) == (Severity.ALARM, 2e-5, one[1])
    assert [item.severity for item in items[1:]] == [Severity.SUSPICIOUS] * 3


async def test_each_severity_has_its_verdicts(store):
    await judge(
        store,
        Judged(0, decision=Decision.UNDECIDED, p_value=None),
        Judged(1, route=Route.AUDIT),
        Judged(2),
        Judged(3, route=Route.ALARM),
    )
    await build_items(store)
    found = [(item.severity, item.verdicts) for item in await listed(store)]
    assert found == [(Severity.UNDECIDED, 1), (Severity.MISSED, 1), (Severity.ALARM, 2)]
    assert (await listed(store, severity=Severity.UNDECIDED))[0].p_value == 0.01  # the edge's


async def test_images_of_another_place_are_another_item(store):
    image = {"modality": Modality.IMAGE}
    numbers = await judge(
        store,
        Judged(0, place=(0, 0), **image),
        Judged(1, place=(7, 7), **image),
        Judged(2, place=(1, 1), **image),
        Judged(3, **image),
    )
    await build_items(store, with_place=["image"])
    assert [await members(store, item.number) for item in await listed(store)] == [
        [numbers[0], numbers[2], numbers[3]],
        [numbers[1]],
    ]


async def test_late_verdicts_join_the_item_of_their_capture(store):
    numbers = await judge(store, Judged(0), Judged(300))
    await build_items(store)
    numbers += await judge(store, Judged(-30, judged_at_s=400), Judged(330, judged_at_s=401))
    numbers += await judge(store, Judged(150, judged_at_s=402))
    await build_items(store)
    items = await listed(store)
    assert [await members(store, item.number) for item in items] == [
        [numbers[0], numbers[2]],
        [numbers[1], numbers[3]],
        [numbers[4]],
    ]
    assert (items[0].first_at_s, items[0].last_at_s) == (START_S - 30, START_S)


async def test_a_verdict_that_is_stored_late_before_others_is_not_skipped(store):
    now_s = time.time()
    recent_s = now_s - START_S
    await judge(store, Judged(recent_s, judged_at_s=recent_s))
    await build_items(store, now_s=now_s)
    await judge(store, Judged(recent_s - 100, source_id="late", judged_at_s=recent_s - SETTLED_S / 2))
    assert (await build_items(store, now_s=now_s)).verdicts == 1
    assert (await build_items(store, now_s=now_s)).verdicts == 0
    assert len(await listed(store)) == 2


async def test_a_capture_by_a_wrong_clock_counts_as_of_its_arrival(store):
    await judge(store, Judged(0), *(Judged(at_s, received_s=20, judged_at_s=25) for at_s in (-1e9, 1e9)))
    await build_items(store)
    (item,) = await listed(store)
    assert (item.verdicts, item.first_at_s, item.last_at_s) == (3, START_S, START_S + 20)


async def test_a_run_that_ends_between_two_steps_goes_on_and_adds_nothing_twice(store, monkeypatch):
    monkeypatch.setattr(builder, "STEP", 3)
    numbers = await judge(store, *(Judged(10 * place) for place in range(11)))
    write, cuts = builder._write, 0

    async def cut(connection, groups) -> None:
        nonlocal cuts
        await write(connection, groups)
        cuts += 1
        if cuts % 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(builder, "_write", cut)
    for _ in range(20):
        try:
            await build_items(store)
        except KeyboardInterrupt:
            continue
        break
    (item,) = await listed(store)
    assert await members(store, item.number) == numbers
    assert item.verdicts == 11
    async with store.reading() as connection:
        version = await review_version(connection)
    await build_items(store)
    async with store.reading() as connection:
        assert await review_version(connection) == version
        assert (await connection.execute(select(func.count()).select_from(review_members))).scalar_one() == 11


async def test_an_item_that_is_decided_full_or_long_takes_no_more(store, monkeypatch):
    await judge(store, Judged(0))
    await build_items(store)
    await decide(store, NewDecision(Label.REAL, {1: 0}), ADA)
    await judge(store, Judged(10))
    await build_items(store)
    assert [item.verdicts for item in await listed(store)] == [1, 1]
    monkeypatch.setattr("cloud.store.review.grouping.MAX_VERDICTS", 2)
    await judge(store, Judged(20), Judged(30))
    await build_items(store)
    assert [item.verdicts for item in await listed(store)] == [1, 2, 1]
    monkeypatch.setattr("cloud.store.review.grouping.MAX_ITEM_S", 30)
    await judge(store, Judged(1000), Judged(1020), Judged(1031))
    await build_items(store)
    assert [item.verdicts for item in await listed(store)][3:] == [2, 1]


async def test_an_item_that_becomes_an_alarm_is_unreviewed_again(store):
    await judge(store, Judged(0))
    await build_items(store)
    await mark(store, ADA.actor, [1], is_reviewed=True)
    await judge(store, Judged(10))
    await build_items(store)
    assert [item.is_reviewed for item in await listed(store, actor=ADA.actor)] == [True]
    await judge(store, Judged(20, route=Route.ALARM))
    await build_items(store)
    assert [(item.severity, item.is_reviewed) for item in await listed(store, actor=ADA.actor)] == [
        (Severity.ALARM, False)
    ]


async def test_items_go_with_the_last_of_their_verdicts(store):
    old_s = -100 * 86_400
    await judge(store, Judged(0), Judged(10, judged_at_s=old_s), Judged(20, source_id="old", judged_at_s=old_s))
    await build_items(store)
    assert await remove_expired(store, 30) == 0
    await remove_old(store, payloads_days=0, verdicts_days=30, events_days=0)
    assert await remove_expired(store, 0) == 0
    assert await remove_expired(store, 30) == 1
    assert [(item.source_id, await members(store, item.number)) for item in await listed(store)] == [("lab", [1])]


@pytest.mark.parametrize("keep_verdicts", [False, True])
async def test_a_removed_device_takes_its_items_along_unless_its_verdicts_stay(store, keep_verdicts):
    await judge(store, Judged(0), Judged(0, device_id="two"))
    await build_items(store)
    await decide(store, NewDecision(Label.REAL, {1: 0}), ADA)
    removal = await begin_removal(store, "one", keep_verdicts=keep_verdicts)
    assert await delete_data(store, removal, service_runs=False)
    await build_items(store)
    left = {item.device_id for item in await listed(store)}
    assert left == ({"one", "two"} if keep_verdicts else {"two"})
    async with store.reading() as connection:
        last = (await connection.execute(select(func.max(review_items.c.number)))).scalar_one()
    await judge(store, Judged(4000, device_id="two"))
    await build_items(store)
    assert (await listed(store))[-1].number == max(last, 2) + 1  # numbers are not used twice
