"""Defect classes: a bounded list that labels name, renamed, merged and removed without a label being rewritten."""

import uuid

import pytest

from cloud.store.defect_classes import (
    MAX_CLASSES,
    ClassRefusedError,
    UnknownClassError,
    add_class,
    listed_classes,
    merge_class,
    remove_class,
    rename_class,
)
from cloud.store.labels import KeyReusedError, Label, NewLabel, add_label, label_history
from cloud.store.review.builder import build_items
from cloud.store.review.decisions import Decider, NewDecision, decide, decisions_on, undo
from cloud.store.review.item_filter import ItemFilter, ItemState
from cloud.store.review.items import ItemOrder, item_page
from tests.cloud.console.filled_store import XSS
from tests.cloud.store.review.judged import Judged, judge

ADA = Decider("ada", "account:ada")


async def names(store) -> list[str]:
    async with store.reading() as connection:
        return [each.name for each in await listed_classes(connection)]


async def listed(store, **wanted):
    async with store.reading() as connection:
        found = await item_page(connection, ItemFilter(**({"state": ItemState.ALL} | wanted)), ItemOrder.OLDEST)
    return found.items


async def test_the_list_is_bounded_and_has_each_name_once(store):
    scratch, is_new = await add_class(store, "  Deep   scratch ", "ada")
    assert (scratch.name, is_new) == ("Deep scratch", True)
    assert await add_class(store, "deep SCRATCH", "ben") == (scratch, False)
    for wrong in ("", "  ", "a\x00b", "x" * 65):
        with pytest.raises(ClassRefusedError):
            await add_class(store, wrong, "ada")
    assert (await add_class(store, XSS[:64], "ada"))[0].name == " ".join(XSS[:64].split())
    for place in range(MAX_CLASSES - 2):
        await add_class(store, f"class {place}", "ada")
    with pytest.raises(ClassRefusedError, match="merge or remove"):
        await add_class(store, "one too many", "ada")
    await remove_class(store, scratch.number, "admin")
    assert (await add_class(store, "deep scratch", "ada"))[1]
    with pytest.raises(ClassRefusedError, match="merge the two"):
        await rename_class(store, scratch.number + 1, "CLASS 1", "admin")
    with pytest.raises(UnknownClassError):
        await rename_class(store, scratch.number, "again", "admin")


async def test_a_name_with_letters_beyond_ascii_is_found_in_any_case(store, add):
    sample_id = uuid.UUID(bytes=(await add())[0])
    stain, _ = await add_class(store, "Ölfleck", "ada")
    assert await add_class(store, "ÖLFLECK", "ben") == (stain, False)
    for name in ("Ölfleck", "ölfleck", "ÖLFLECK"):
        label, _ = await add_label(store, sample_id, NewLabel(Label.REAL, "Ada", defect_class=name), "a")
        assert label.defect_class == "Ölfleck"
    other, _ = await add_class(store, "dent", "ada")
    with pytest.raises(ClassRefusedError, match="merge the two"):
        await rename_class(store, other.number, "ÖlFleck", "admin")
    await judge(store, Judged(0))
    await build_items(store)
    await decide(store, NewDecision(Label.REAL, {1: 0}, defect_class="ölfleck"), ADA)
    assert [item.number for item in await listed(store, defect_class="Ölfleck")] == [1]
    with pytest.raises(ClassRefusedError):
        await add_label(store, sample_id, NewLabel(Label.REAL, "Ada", defect_class="\x00"), "a")


async def test_labels_follow_a_renamed_and_a_merged_class_and_keep_a_removed_one(store, add):
    sample_id = uuid.UUID(bytes=(await add())[0])
    scratch, dent, crack = [(await add_class(store, name, "ada"))[0] for name in ("scratch", "dent", "crack")]
    new = NewLabel(Label.REAL, "Ada", defect_class="Scratch", client_key="k")
    assert (await add_label(store, sample_id, new, "a"))[0].defect_class == "scratch"
    assert (await add_label(store, sample_id, new, "a"))[1] is False
    with pytest.raises(KeyReusedError):
        await add_label(store, sample_id, NewLabel(Label.REAL, "Ada", defect_class="dent", client_key="k"), "a")

    async def shown() -> str:
        async with store.reading() as connection:
            return (await label_history(connection, sample_id))[0].defect_class

    await rename_class(store, scratch.number, "long scratch", "admin")
    assert await shown() == "long scratch"
    await merge_class(store, scratch.number, dent.number, "admin")
    assert await shown() == "dent"
    await merge_class(store, dent.number, crack.number, "admin")
    assert await shown() == "crack"
    assert await names(store) == ["crack"]
    merged, _ = await add_label(store, sample_id, NewLabel(Label.MISSED, "Ada", defect_class="long scratch"), "a")
    assert merged.defect_class == "crack"  # an older page still has the old name
    await remove_class(store, crack.number, "admin")
    assert (await names(store), await shown()) == ([], "crack")
    for label, name, error in (
        (Label.REAL, "crack", UnknownClassError),
        (Label.MISSED, "dent", UnknownClassError),
        (Label.FALSE_ALARM, "crack", ClassRefusedError),
    ):
        with pytest.raises(error):
            await add_label(store, sample_id, NewLabel(label, "Ada", defect_class=name), "a")


async def test_a_decision_names_a_class_and_its_undo_brings_the_earlier_one_back(store):
    await judge(store, Judged(0), Judged(1000), Judged(2000))
    await build_items(store)
    for name in ("scratch", "dent"):
        await add_class(store, name, "ada")
    (first,) = await decide(store, NewDecision(Label.REAL, {1: 0}, defect_class="scratch"), ADA)
    (second,) = await decide(store, NewDecision(Label.REAL, {1: first.number}, defect_class="dent"), ADA)
    await decide(store, NewDecision(Label.REAL, {2: 0}), ADA)
    assert [item.number for item in await listed(store, defect_class="dent")] == [1]
    assert [item.number for item in await listed(store, defect_class="scratch")] == []
    await undo(store, [second.number], ADA)
    (item,) = await listed(store, defect_class="Scratch")
    assert (item.number, item.defect_class) == (1, "scratch")
    async with store.reading() as connection:
        labels = await label_history(connection, item.cover.sample_id)
        decided = await decisions_on(connection, 1)
    assert [label.defect_class for label in labels] == ["scratch", "dent", "scratch"]
    assert [each.defect_class for each in decided] == ["scratch", "dent", "scratch"]
    for decision, name, error in (
        (Label.FALSE_ALARM, "dent", ClassRefusedError),
        (Label.REAL, "nothing", UnknownClassError),
    ):
        with pytest.raises(error):
            await decide(store, NewDecision(decision, {3: 0}, defect_class=name), ADA)
    assert (await listed(store))[2].decision is None
