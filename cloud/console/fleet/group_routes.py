"""Pages of groups: all of them, and one with its settings, a forecast and the history."""

import time
from collections.abc import Collection
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from cloud.console.audience import Audiences
from cloud.console.fleet.device_routes import SETTING_WORDS
from cloud.console.page import page
from cloud.store import Store
from cloud.store.group_settings import REPORT_WITHIN_S, GroupChange, changes_of, group_states
from cloud.store.groups import bundles_of_groups, late_devices
from cloud.words import bytes_words, duration_words
from shared.group_settings import GroupSettings

CHANGES_ON_PAGE = 20


def group_router(store: Store, audiences: Audiences) -> APIRouter:
    """Return the pages; changes are made through the HTTP API."""
    router = APIRouter(include_in_schema=False)

    @router.get("/groups")
    async def groups(request: Request) -> HTMLResponse:
        """Answer with the page of all groups."""
        audience = audiences.of(request)

        async def read() -> tuple[int, dict[str, Any]]:
            async with store.reading() as connection:
                states = await group_states(connection, audience.sites)
                bundles = await bundles_of_groups(connection, [state.group for state in states])
            rows = [(state, bundles[state.group], setting_words(state.settings)) for state in states]
            return 200, {"groups": rows, "may_change": not audience.sites}

        return await page(request, audience, "fleet/groups.html", read)

    @router.get("/group/{group}")
    async def group_page(request: Request, group: str) -> HTMLResponse:
        """Answer with the page of one group; 404 for an unknown one."""
        audience = audiences.of(request)

        async def read() -> tuple[int, dict[str, Any]]:
            found = await _read(store, group, audience.sites, audience.snapshots.late_after_s)
            values = found or {"group_state": None}
            return 200 if found else 404, {"may_change": not audience.sites, **values}

        return await page(request, audience, "fleet/group.html", read, group=group)

    return router


async def _read(store: Store, group: str, sites: Collection[str], late_after_s: float) -> dict[str, Any] | None:
    """Return the values of the page of a group; None for an unknown one."""
    async with store.reading() as connection:
        state = next((each for each in await group_states(connection, sites) if each.group == group), None)
        if state is None:
            return None
        late = await late_devices(connection, state, time.time(), late_after_s=late_after_s, sites=sites)
        bundles = await bundles_of_groups(connection, [group])
        changes = await changes_of(connection, group, size=CHANGES_ON_PAGE)
    return {
        "group_state": state,
        "state_words": setting_words(state.settings),
        "bundles": bundles[group],
        "late": late,
        "report_within": duration_words(REPORT_WITHIN_S),
        "changes": [change_on_page(change) for change in changes],
        "names": SETTING_WORDS,
        "values": state.settings.given(),
    }


def setting_words(settings: GroupSettings) -> list[str]:
    """Return the given settings in words, each a text of its own."""
    return [f"{SETTING_WORDS[name]}: {value:g}" for name, value in settings.given().items()]


def change_on_page(change: GroupChange) -> dict[str, Any]:
    """Return a change with its differences, forecast and outcome in words."""
    before, after = change.before.given(), change.after.given()
    changed = [
        f"{words}: {_value(before.get(name))} → {_value(after.get(name))}"
        for name, words in SETTING_WORDS.items()
        if before.get(name) != after.get(name)
    ]
    return {
        "number": change.number,
        "at_s": change.at_s,
        "actor": change.actor,
        "changed": changed,
        "undoes": change.undoes,
        "forecast": _forecast(change.forecast),
        "outcome": _outcome(change.outcome),
    }


def _value(value: float | None) -> str:
    return "as in edge.toml" if value is None else f"{value:g}"


def _forecast(expected: dict[str, Any] | None) -> str:
    if expected is None:
        return "none"
    kind = {"exact": "", "estimate": ", an estimate", "unknown": " at least"}[expected["trust"]]
    return (
        f"{_items(expected)}; {_number(expected['alarms_per_day'])} alarms a day{kind}; "
        f"{bytes_words(round(expected['bytes_per_day']))} a day"
    )


def _outcome(came: dict[str, Any] | None) -> str:
    if came is None:
        return "a day after the change"
    if came["items_per_day"] is None:
        return "changed again at once"
    short = f" in {came['hours']:.0f} hours" if came["hours"] < 23.5 else ""
    return f"{_items(came)}{short}"


def _items(figures: dict[str, Any]) -> str:
    items, alarms = _number(figures["items_per_day"]), _number(figures["alarm_items_per_day"])
    return f"{items} items a day, {alarms} of them alarms"


def _number(value: float) -> str:
    """Return a figure with three significant digits, as far as it can be relied on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
