"""Decisions on review items: labels of all verdicts, undo, conflicts, repeated requests, marks, on both back ends."""

import uuid
from dataclasses import replace

import pytest
from sqlalchemy import select

from cloud.store.audit import AuditFilter, audit_page
from cloud.store.labels import KeyReusedError, Label, NewLabel, add_label, current_labels, label_history
from cloud.store.review import decisions
from cloud.store.review.builder import build_items
from cloud.store.review.counts import density, left_counts
from cloud.store.review.decisions import (
    Decider,
    DecisionConflictError,
    NewDecision,
    TooManyVerdictsError,
    UnknownItemsError,
    decide,
    decisions_on,
    undo,
)
from cloud.store.review.item_filter import ItemFilter, ItemState
from cloud.store.review.items import ItemOrder, count_newer_items, item_page, items_by_number
from cloud.store.review.marks import mark
from cloud.store.review.saved_views import MAX_VIEWS, SavedView, remove_view, save_view, saved_views
from cloud.store.review.severity import Severity
from cloud.store.schema import devices, samples
from shared.errors import DataError
from shared.samples import Decision, Route
from tests.cloud.store.review.judged import START_S, Judged, judge

ADA, BEN = Decider("ada", "account:ada"), Decider("ben", "account:ben")


async def labels_now(store, numbers) -> list[Label | None]:
    async with store.reading() as connection:
        found = await current_labels(connection, numbers)
    return [found.get(number) for number in numbers]


async def item(store, number=1, actor=ADA.actor):
    async with store.reading() as connection:
        return (await items_by_number(connection, [number], actor))[0]


async def test_a_decision_labels_every_verdict_of_its_items_and_undo_brings_the_labels_back(store):
    numbers = await judge(store, Judged(0), Judged(10), Judged(500), Judged(1000, route=Route.AUDIT))
    await build_items(store)
    async with store.reading() as connection:
        query = select(samples.c.sample_id).where(samples.c.number == numbers[0])
        first = uuid.UUID(bytes=(await connection.execute(query)).scalar_one())
    await add_label(store, first, NewLabel(Label.UNSURE, "ben"), BEN.actor)
    made = await decide(store, NewDecision(Label.REAL, {1: 0, 2: 0, 3: 0}, "a crack"), ADA)
    assert await labels_now(store, numbers) == [Label.REAL, Label.REAL, Label.REAL, Label.MISSED]
    shown = await item(store)
    assert (shown.decision, shown.decided_by, shown.note, shown.is_reviewed) == (Label.REAL, "ada", "a crack", True)
    async with store.reading() as connection:
        history = await label_history(connection, first)
        (entry, *_) = await audit_page(connection, AuditFilter(action="item.decided", subject="item 1"))
    assert [(label.label, label.author, label.note) for label in history] == [
        (Label.REAL, "ada", "a crack"),
        (Label.UNSURE, "ben", ""),
    ]
    assert entry.details == {"decision": "real", "number": made[0].number, "verdicts": 2}
    taken = await undo(store, [decision.number for decision in made], ADA)
    assert await labels_now(store, numbers) == [Label.UNSURE, None, None, None]
    assert (await item(store)).is_left
    again = await undo(store, [taken[0].number], BEN)
    assert await labels_now(store, numbers) == [Label.REAL, Label.REAL, None, None]
    assert (again[0].decision, (await item(store)).decision) == (Label.REAL, Label.REAL)


async def test_the_later_of_two_operators_is_asked_and_nothing_is_lost(store):
    numbers = await judge(store, Judged(0), Judged(500))
    await build_items(store)
    (first,) = await decide(store, NewDecision(Label.REAL, {1: 0}), ADA)
    with pytest.raises(DecisionConflictError, match="ada has decided real on item 1") as asked:
        await decide(store, NewDecision(Label.FALSE_ALARM, {1: 0, 2: 0}), BEN)
    assert asked.value.found == (first,)
    assert await labels_now(store, numbers) == [Label.REAL, None]
    await decide(store, NewDecision(Label.FALSE_ALARM, {1: first.number, 2: 0}), BEN)
    assert await labels_now(store, numbers) == [Label.FALSE_ALARM, Label.FALSE_ALARM]
    with pytest.raises(DecisionConflictError, match="ben has decided"):
        await undo(store, [first.number], ADA)
    async with store.reading() as connection:
        history = await decisions_on(connection, 1)
    assert [(made.author, made.decision, made.before) for made in history] == [
        ("ben", Label.FALSE_ALARM, first.number),
        ("ada", Label.REAL, 0),
    ]
    await undo(store, [history[0].number], BEN)
    shown = await item(store)
    assert (shown.decision, await labels_now(store, numbers)) == (Label.REAL, [Label.REAL, Label.FALSE_ALARM])


async def test_an_undo_leaves_labels_that_others_gave_afterwards(store):
    numbers = await judge(store, Judged(0), Judged(10))
    await build_items(store)
    (made,) = await decide(store, NewDecision(Label.REAL, {1: 0}), ADA)
    async with store.reading() as connection:
        query = select(samples.c.sample_id).where(samples.c.number == numbers[1])
        second = uuid.UUID(bytes=(await connection.execute(query)).scalar_one())
    await add_label(store, second, NewLabel(Label.UNSURE, "ben"), BEN.actor)
    await undo(store, [made.number], ADA)
    assert await labels_now(store, numbers) == [None, Label.UNSURE]


async def test_a_repeated_request_stores_nothing_and_a_key_is_of_one_request(store):
    await judge(store, Judged(0), Judged(500))
    await build_items(store)
    keyed = Decider("ada", "account:ada", client_key="k1")
    first = await decide(store, NewDecision(Label.REAL, {1: 0}), keyed)
    assert await decide(store, NewDecision(Label.REAL, {1: 0}), keyed) == first
    others = ({"decision": Label.UNSURE}, {"seen": {2: 0}}, {"seen": {1: 7}}, {"note": "x"}, {"defect_class": "dent"})
    for other in others:
        with pytest.raises(KeyReusedError):
            await decide(store, replace(NewDecision(Label.REAL, {1: 0}), **other), keyed)
    with pytest.raises(KeyReusedError):
        await decide(store, NewDecision(Label.REAL, {1: 0}), replace(keyed, author="eve"))
    undone = Decider("ada", "account:ada", client_key="k2")
    taken = await undo(store, [first[0].number], undone)
    assert await undo(store, [first[0].number], undone) == taken
    for numbers, by in (([taken[0].number], undone), ([first[0].number], replace(undone, author="eve"))):
        with pytest.raises(KeyReusedError):
            await undo(store, numbers, by)


async def test_what_cannot_be_decided_stores_nothing(store, monkeypatch):
    numbers = await judge(store, Judged(0), Judged(10), Judged(500))
    await build_items(store)
    with pytest.raises(UnknownItemsError, match="no review item 7"):
        await decide(store, NewDecision(Label.REAL, {1: 0, 7: 0}), ADA)
    with pytest.raises(UnknownItemsError):
        await decide(store, NewDecision(Label.REAL, {1: 0}), Decider("eve", "account:eve", sites=("hull",)))
    with pytest.raises(UnknownItemsError):
        await undo(store, [99], ADA)
    with pytest.raises(DataError, match="names a decision that is not there"):
        await decide(store, NewDecision(Label.REAL, {1: 55}), ADA)
    monkeypatch.setattr(decisions, "MAX_DECIDED_VERDICTS", 2)
    with pytest.raises(TooManyVerdictsError, match="select fewer"):
        await decide(store, NewDecision(Label.REAL, {1: 0, 2: 0}), ADA)
    assert await labels_now(store, numbers) == [None, None, None]


async def test_what_is_left_is_counted_for_each_person(store):
    async with store.writing() as connection:
        await connection.execute(devices.update().where(devices.c.device_id == "two").values(site="hull"))
    await judge(store, Judged(0, route=Route.ALARM), Judged(500), Judged(0, device_id="two", route=Route.ALARM))
    await judge(store, Judged(1000, decision=Decision.UNDECIDED, p_value=None))
    await build_items(store)
    await mark(store, ADA.actor, [1], is_reviewed=True)
    assert await mark(store, BEN.actor, [1, 4, 99], is_reviewed=True, sites=("hull",)) == []

    async def left(actor, **wanted):
        async with store.reading() as connection:
            return await left_counts(connection, ItemFilter(actor, **wanted))

    ben = await left(BEN.actor, severity=Severity.ALARM)
    assert [ben.by_severity[name] for name in Severity] == [2, 1, 1, 0]
    assert (ben.by_site, ben.by_device) == ({"default": 1, "hull": 1}, {"one": 1, "two": 1})
    ada = await left(ADA.actor, severity=Severity.ALARM, site="default")
    assert [ada.by_severity[name] for name in Severity] == [0, 1, 1, 0]
    assert (ada.by_site, ada.by_device) == ({"hull": 1}, {})
    assert (await left(ADA.actor, sites=("hull",))).by_device == {"two": 1}
    await decide(store, NewDecision(Label.FALSE_ALARM, {2: 0}), BEN)
    assert sum((await left(BEN.actor)).by_severity.values()) == 3
    await mark(store, ADA.actor, [1], is_reviewed=False)
    assert (await left(ADA.actor)).by_severity[Severity.ALARM] == 1


async def test_lists_are_filtered_ordered_and_cut_into_pages(store):
    chances = [0.004, 1e-6, 0.001, 1e-3]
    await judge(store, *(Judged(500 * place, p_value=p) for place, p in enumerate(chances)))
    await judge(store, Judged(9, source_id="yard 100%", device_id="two", origin="part_7.png"))
    await build_items(store)

    async def numbers(order=ItemOrder.NEWEST, size=2, **wanted) -> list[int]:
        found, after = [], None
        while True:
            async with store.reading() as connection:
                page = await item_page(connection, ItemFilter(ADA.actor, **wanted), order, after=after, size=size)
            found += [each.number for each in page.items]
            if (after := page.following) is None:
                return found

    every = await numbers(size=200)
    assert len(every) == 5
    assert every == sorted(every, reverse=True)
    assert await numbers() == every
    assert await numbers(ItemOrder.OLDEST) == every[::-1]
    async with store.reading() as connection:
        shown = {each.number: each.p_value for each in await items_by_number(connection, every, "")}
    assert await numbers(ItemOrder.ODDEST) == sorted(every, key=lambda number: (shown[number], number))
    assert [shown[number] for number in await numbers(odds=1000, size=200)] == [1e-3, 0.001, 1e-6]
    yard = await numbers(text="100%")
    assert len(yard) == 1
    assert await numbers(text="PART_") == yard == await numbers(device_id="two")
    assert await numbers(text="100_") == []
    assert len(await numbers(since_s=START_S + 400, until_s=START_S + 1100)) == 2
    await decide(store, NewDecision(Label.REAL, {yard[0]: 0}), ADA)
    assert await numbers(state=ItemState.REAL) == yard == await numbers(state=ItemState.REVIEWED)
    assert yard[0] not in await numbers()
    async with store.reading() as connection:
        assert await count_newer_items(connection, ItemFilter(BEN.actor), every[2]) == 2
        buckets = await density(connection, ItemFilter(state=ItemState.ALL), START_S, START_S + 2000, 500)
        with pytest.raises(DataError, match="intervals"):
            await density(connection, ItemFilter(), START_S, START_S + 2000, 1e-3)
    assert [(bucket.at_s - START_S, bucket.severity, bucket.items) for bucket in buckets] == [
        (0, Severity.SUSPICIOUS, 2),
        (500, Severity.ALARM, 1),
        (1000, Severity.SUSPICIOUS, 1),
        (1500, Severity.SUSPICIOUS, 1),
    ]


async def test_a_person_has_views_of_their_own_and_not_too_many(store):
    for place in range(MAX_VIEWS):
        assert await save_view(store, ADA.actor, SavedView(f"v{place:02}", "severity=alarm"))
    assert not await save_view(store, ADA.actor, SavedView("one more", ""))
    assert await save_view(store, ADA.actor, SavedView("v00", "site=hull"))
    async with store.reading() as connection:
        assert (await saved_views(connection, ADA.actor))[0] == SavedView("v00", "site=hull")
        assert await saved_views(connection, BEN.actor) == []
    assert await remove_view(store, ADA.actor, "v00")
    assert not await remove_view(store, BEN.actor, "v01")
