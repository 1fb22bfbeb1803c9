"""Groups are made, renamed and removed; their settings have a history; many devices move at once and back."""

import time

import pytest
from sqlalchemy import insert, select, update

from cloud.store.audit import AuditFilter, audit_page
from cloud.store.fleet import Place, add_tokens, devices_by_id, revoke, set_place, store_heartbeat
from cloud.store.fleet_list import FleetQuery
from cloud.store.group_settings import (
    KEPT_CHANGES,
    REPORT_WITHIN_S,
    ChangeFacts,
    GroupChangedError,
    change_settings,
    changes_of,
    group_sizes,
    group_states,
    undo_change,
)
from cloud.store.groups import (
    GroupRefusedError,
    UnknownGroupError,
    bundles_of_groups,
    late_devices,
    make_group,
    remove_group,
    rename_group,
)
from cloud.store.moves import MatchesChangedError, Matching, Mover, UnknownDevicesError, move_devices, undo_move
from cloud.store.schema import bundle_groups, devices, group_changes, group_settings
from cloud.store.webhooks import NewWebhook, add_webhook, stored_webhooks
from shared.errors import DataError
from shared.group_settings import GroupSettings
from shared.status import Heartbeat

ADA = Mover("account:ada")


async def names(store) -> list[str]:
    async with store.reading() as connection:
        return [state.group for state in await group_states(connection)]


async def state_of(store, group: str):
    async with store.reading() as connection:
        return next(state for state in await group_states(connection) if state.group == group)


async def history(store, group: str, **wanted):
    async with store.reading() as connection:
        return await changes_of(connection, group, **wanted)


async def places(store) -> dict[str, tuple[str, str]]:
    found = await devices_by_id(store, ["one", "two"])
    return {name: (device.site, device.group_name) for name, device in found.items()}


async def test_a_group_is_made_renamed_with_all_that_names_it_and_removed(store) -> None:
    await make_group(store, "presses", "account:ada")
    assert await names(store) == ["default", "presses"]
    with pytest.raises(GroupRefusedError, match="already"):
        await make_group(store, "presses")
    await set_place(store, ["one"], Place(group="presses"))
    await change_settings(store, "presses", GroupSettings(audit_share=0.1))
    await add_tokens(store, {"secret": "three"}, time.time() + 60, Place(group="presses"))
    async with store.writing() as connection:
        await connection.execute(insert(bundle_groups).values(bundle_name="biopsy", group_name="presses"))
    await rename_group(store, "presses", "hydraulic")
    assert await names(store) == ["default", "hydraulic"]
    assert (await state_of(store, "hydraulic")).settings == GroupSettings(audit_share=0.1)
    assert len(await history(store, "hydraulic")) == 1
    assert (await places(store))["one"] == ("default", "hydraulic")
    for reason in ("1 device", "enrolment token", "released to hydraulic alone"):
        with pytest.raises(GroupRefusedError, match=reason):
            await remove_group(store, "hydraulic")
        if reason == "1 device":
            await set_place(store, ["one"], Place(group="default"))
        elif reason == "enrolment token":
            await revoke(store, "one")
            async with store.writing() as connection:
                await connection.exec_driver_sql("DELETE FROM tokens")
    async with store.writing() as connection:
        await connection.execute(insert(bundle_groups).values(bundle_name="biopsy", group_name="default"))
    await remove_group(store, "hydraulic")
    assert await names(store) == ["default"]
    async with store.reading() as connection:
        assert (await connection.execute(select(bundle_groups.c.group_name))).scalars().all() == ["default"]
        assert (await connection.execute(select(group_settings))).first() is None
        entries = await audit_page(connection, AuditFilter(actor="account:ada"))
    assert [entry.action for entry in entries] == ["group.made"]


async def test_webhooks_and_moves_follow_a_new_name(store) -> None:
    new = NewWebhook("https://hooks.example", ("anomalous",), groups=("welds", "presses"))
    assert await add_webhook(store, new, "account:ada") is not None
    await set_place(store, ["one"], Place(group="presses"))
    to = await move_devices(store, ["two"], Place(group="presses"), ADA)
    away = await move_devices(store, ["one"], Place(group="welds"), ADA)
    await rename_group(store, "presses", "hydraulic")
    async with store.reading() as connection:
        (webhook,) = await stored_webhooks(connection)
    assert webhook.groups == ("welds", "hydraulic")
    for number, moved in ((to.number, "two"), (away.number, "one")):
        undone = await undo_move(store, number, ADA)
        assert undone is not None
        assert undone.moved == (moved,)
    assert {name: group for name, (_, group) in (await places(store)).items()} == {"one": "hydraulic", "two": "default"}


async def test_a_group_of_removed_devices_alone_can_be_made_again_and_one_of_an_open_token_not(store) -> None:
    await make_group(store, "presses")
    await set_place(store, ["one"], Place(group="presses"))
    async with store.writing() as connection:
        gone = update(devices).where(devices.c.device_id == "one")
        await connection.execute(gone.values(revoked_at_s=1.0, removed_at_s=1.0))
    await remove_group(store, "presses")
    assert "presses" not in await names(store)
    with pytest.raises(UnknownGroupError):
        await remove_group(store, "presses")
    await make_group(store, "presses")
    await add_tokens(store, {"secret": "three"}, time.time() + 60, Place(group="welds"))
    await add_tokens(store, {"old": "four"}, time.time() - 60, Place(group="over"))
    with pytest.raises(GroupRefusedError, match="already"):
        await rename_group(store, "presses", "welds")
    with pytest.raises(GroupRefusedError, match="enrolment token"):
        await remove_group(store, "welds")
    await make_group(store, "over")


async def test_what_cannot_be_is_refused(store) -> None:
    for work in (rename_group(store, "default", "x"), remove_group(store, "default")):
        with pytest.raises(GroupRefusedError, match="stays as it is"):
            await work
    for work in (rename_group(store, "nobody", "x"), remove_group(store, "nobody")):
        with pytest.raises(UnknownGroupError):
            await work
    await make_group(store, "presses")
    with pytest.raises(GroupRefusedError, match="already"):
        await rename_group(store, "presses", "default")
    with pytest.raises(GroupRefusedError, match="already"):
        await make_group(store, "default")


async def test_a_change_of_what_somebody_else_has_changed_is_refused(store) -> None:
    first = GroupSettings(audit_share=0.1)
    assert (await change_settings(store, "presses", first, facts=ChangeFacts(if_version=0)))[0] == first
    seen = (await state_of(store, "presses")).version
    assert await change_settings(store, "presses", first) == (first, seen), "nothing has changed"
    await change_settings(store, "presses", GroupSettings(audit_share=0.2), facts=ChangeFacts("account:ada", seen))
    with pytest.raises(GroupChangedError, match="meanwhile"):
        await change_settings(store, "presses", GroupSettings(audit_share=0.3), facts=ChangeFacts("account:bob", seen))
    assert (await state_of(store, "presses")).settings == GroupSettings(audit_share=0.2)


async def test_the_sizes_of_groups_count_those_of_the_list(store) -> None:
    await make_group(store, "empty")
    await change_settings(store, "presses", GroupSettings(audit_share=0.1))
    await set_place(store, ["one"], Place("north", "welds"))
    await set_place(store, ["two"], Place("south", "welds"))
    async with store.reading() as connection:
        for sites in ((), ("north",), ("nowhere",)):
            states = await group_states(connection, sites)
            sizes = await group_sizes(connection, sites)
            assert list(sizes.items()) == [(state.group, state.devices) for state in states], sites
        assert await group_sizes(connection, ("north",)) == {"welds": 1}
        assert await group_sizes(connection) == {"default": 0, "empty": 0, "presses": 0, "welds": 2}
    await revoke(store, "two")
    async with store.reading() as connection:
        assert (await group_sizes(connection))["welds"] == 1


async def test_the_history_holds_each_change_and_an_undo_is_one(store) -> None:
    expected = {"items_per_day": 4.5}
    first, second = GroupSettings(audit_share=0.1), GroupSettings(false_alarms_per_day=2.0)
    await change_settings(store, "presses", first, facts=ChangeFacts("account:ada", forecast=expected))
    await change_settings(store, "presses", second)
    newest, oldest = await history(store, "presses")
    assert (oldest.before, oldest.after, oldest.actor) == (GroupSettings(), first, "account:ada")
    assert (oldest.forecast, oldest.outcome, oldest.undoes) == (expected, None, None)
    assert newest.after == GroupSettings(audit_share=0.1, false_alarms_per_day=2.0)
    with pytest.raises(GroupChangedError):
        await undo_change(store, "presses", oldest.number, "account:bob")
    assert await undo_change(store, "presses", newest.number, "account:bob") == first
    undone, *_ = await history(store, "presses")
    assert (undone.undoes, undone.after, undone.actor) == (newest.number, first, "account:bob")
    assert await undo_change(store, "presses", undone.number) == newest.after  # and back again
    assert [change.number for change in await history(store, "presses", before=newest.number)] == [oldest.number]
    assert await history(store, "default") == []


async def test_the_history_of_a_group_is_bounded(store) -> None:
    async with store.writing() as connection:
        rows = [{"group_name": "presses", "at_s": 1.0, "actor": "a", "before": {}, "after": {}}] * KEPT_CHANGES
        await connection.execute(insert(group_changes), rows)
    await change_settings(store, "presses", GroupSettings(audit_share=0.1))
    found = await history(store, "presses", size=2 * KEPT_CHANGES)
    assert len(found) == KEPT_CHANGES
    assert found[0].after == GroupSettings(audit_share=0.1)


async def test_devices_that_do_not_report_the_settings_are_listed_with_the_reason(store) -> None:
    await store_heartbeat(store, "one", Heartbeat(settings=GroupSettings(audit_share=0.01)))
    await store_heartbeat(store, "two", Heartbeat(settings_refusal="refused: no"))
    await change_settings(store, "default", GroupSettings(audit_share=0.1))
    state, now_s = await state_of(store, "default"), time.time()

    async def late(at_s: float) -> dict[str, str]:
        async with store.reading() as connection:
            return {
                each.device_id: each.reason for each in await late_devices(connection, state, at_s, late_after_s=60)
            }

    assert await late(now_s) == {"two": "It refuses them: refused: no"}
    after = now_s + REPORT_WITHIN_S + 1
    assert (await late(after))["one"] == "It is silent, and gets them with its next heartbeat."
    async with store.reading() as connection:
        (at, *_) = await late_devices(connection, state, after, late_after_s=1e6)
    assert at.reason.startswith("It reports other settings")
    await store_heartbeat(store, "one", Heartbeat(settings=GroupSettings(audit_share=0.1, max_bytes_per_s=3.0)))
    assert set(await late(after)) == {"two"}


async def test_the_bundles_of_a_group_are_those_released_to_it(store) -> None:
    async with store.reading() as connection:
        assert await bundles_of_groups(connection, ["default"]) == {"default": []}


async def test_devices_move_together_and_an_undo_takes_them_back(store) -> None:
    await set_place(store, ["two"], Place("hull", "welds"))
    move = await move_devices(store, ["one", "two", "one"], Place(group="welds"), ADA)
    assert move.moved == ("one",)
    await set_place(store, ["one"], Place(site="dock"))
    undone = await undo_move(store, move.number, ADA)
    assert undone is not None
    assert undone.moved == ("one",)
    assert await places(store) == {"one": ("dock", "default"), "two": ("hull", "welds")}
    assert await undo_move(store, move.number, ADA) is None, "once"
    both = await move_devices(store, ["one", "two"], Place("yard", "presses"), ADA)
    await set_place(store, ["two"], Place(group="moved again"))
    undone = await undo_move(store, both.number, ADA)
    assert undone is not None
    assert (undone.moved, undone.skipped) == (("one",), ("two",))
    assert await places(store) == {"one": ("dock", "default"), "two": ("yard", "moved again")}
    async with store.reading() as connection:
        entries = await audit_page(connection, AuditFilter(actor="account:ada", action="device.placed"))
    assert len(entries) == 5


async def test_all_that_match_move_if_as_many_match_as_were_seen(store) -> None:
    every = FleetQuery(group="default")
    with pytest.raises(MatchesChangedError, match="2 devices match now, not 3"):
        await move_devices(store, Matching(every, 0.0, 3), Place(group="all"), ADA)
    move = await move_devices(store, Matching(FleetQuery(text="ONE"), 0.0, 1), Place(group="all"), ADA)
    assert move.moved == ("one",)
    never = await move_devices(store, Matching(FleetQuery(health="never seen"), 0.0, 2), Place(group="new"), ADA)
    assert never.moved == ("one", "two")


async def test_an_account_moves_devices_of_its_sites_only(store, monkeypatch) -> None:
    await set_place(store, ["two"], Place("hull"))
    hull = Mover("account:bob", ("hull",))
    with pytest.raises(UnknownDevicesError, match="one"):
        await move_devices(store, ["one", "two"], Place(group="x"), hull)
    assert (await places(store))["two"] == ("hull", "default"), "a refused move changes nothing"
    move = await move_devices(store, ["one", "two"], Place(group="x"), ADA)
    undone = await undo_move(store, move.number, hull)
    assert undone is not None
    assert (undone.moved, undone.skipped) == (("two",), ("one",))
    assert await undo_move(store, move.number, hull) is None
    undone = await undo_move(store, move.number, ADA)
    assert undone is not None, "the undo of the others is not used up"
    assert (undone.moved, undone.skipped) == (("one",), ("two",))
    assert await undo_move(store, move.number, ADA) is None
    for site in ("dock", "hull"):  # away from their site, and to it from another one
        crossing = await move_devices(store, ["two"], Place(site), ADA)
        assert await undo_move(store, crossing.number, hull) is None
        assert (await places(store))["two"] == (site, "default")
    foreign = await move_devices(store, ["one"], Place(group="y"), ADA)
    assert await undo_move(store, foreign.number, hull) is None
    assert (await move_devices(store, Matching(FleetQuery(), 0.0, 1), Place(group="z"), hull)).moved == ("two",)
    monkeypatch.setattr("cloud.store.moves.MAX_MOVED", 1)
    with pytest.raises(DataError, match="more than the 1"):
        await move_devices(store, ["one", "two"], Place(group="z"), ADA)
