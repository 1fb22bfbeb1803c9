"""One page of the list of verdicts: read, ordered and as HTML."""

import time
from dataclasses import dataclass, replace
from typing import Any

from cloud.console.audience import Audience
from cloud.console.guidance import BundleProblems, no_device, no_match, no_match_yet, no_verdict, not_ready
from cloud.console.rendering import render
from cloud.console.verdicts.query import ListQuery
from cloud.console.verdicts.table import ORDERS, filter_choices, table_columns
from cloud.console.views import row_view
from cloud.store import Store
from cloud.store.fleet_queries import FleetSummary, device_ids
from cloud.store.queries import VerdictPage, count_newer, key_of, verdict_page
from cloud.store.verdict_columns import VerdictRow
from cloud.store.verdict_keys import VerdictKey

PAGE_SIZE = 50
MAX_CHOICES = 500  # devices in the filter; others are in its address: /verdicts?device=ID
_BEGIN = VerdictKey(0.0, 0)
_NO_ROWS = VerdictPage((), None, None)


@dataclass(frozen=True, slots=True)
class ListedPage:
    """One page of the list: its query, which may lead to the top after all, and its HTML."""

    query: ListQuery
    html: str


class ListReader:
    """Reader of the list; open pages with the same address share their page."""

    def __init__(self, store: Store, bundle_problems: BundleProblems) -> None:
        self._store, self._bundle_problems = store, bundle_problems

    async def page(self, audience: Audience, query: ListQuery) -> ListedPage:
        """Return one page; raises StorageError."""
        key = ("list", query, tuple(self._bundle_problems().items()))
        return await audience.snapshots.shared(key, lambda: self._read(audience, query))

    async def new(self, audience: Audience, query: ListQuery, since: VerdictKey | None) -> int:
        """Return how many verdicts of the list are newer than a key, up to MAX_COUNTED; raises StorageError."""

        async def read() -> int:
            async with self._store.reading() as connection:
                return await count_newer(connection, query.to_filter(time.time(), audience.sites), since)

        return await audience.snapshots.shared(("new", query.top(), since), read)

    async def choices(self, audience: Audience, query: ListQuery) -> list[dict[str, Any]]:
        """Return the drop-down filters; raises StorageError."""

        async def read() -> tuple[str, ...]:
            async with self._store.reading() as connection:
                return await device_ids(connection, MAX_CHOICES, audience.sites)

        known = await audience.snapshots.shared("device ids", read)
        return filter_choices(sorted({*known, query.device} - {""}))

    async def _read(self, audience: Audience, query: ListQuery) -> ListedPage:
        page = await self._verdicts(audience, query)
        onward, back = (page.newer, page.older) if query.is_oldest_first else (page.older, page.newer)
        turned_back = query.before is not None if query.is_oldest_first else query.after is not None
        if turned_back and (back is None or not page.rows):  # at the top again: follow new verdicts
            query = query.top()
            page = await self._verdicts(audience, query)
            onward = page.newer if query.is_oldest_first else page.older
        summary = (await audience.snapshots.newest()).summary
        html = render(
            "verdicts/list.html",
            query=query,
            order=ORDERS[query.sort],
            columns=table_columns(),
            rows=[row_view(row) for row in _ordered(page.rows, query)],
            devices=summary.devices,
            first_key=key_of(page.rows[0]) if page.rows else "",
            address=query.address(),
            top=query.top().address(),
            onward=_turn(query, onward, is_onward=True),
            back=_turn(query, back, is_onward=False) if not query.is_top else None,
            empty=None if page.rows else self._guidance(page, query, summary),
        )
        return ListedPage(query, html)

    async def _verdicts(self, audience: Audience, query: ListQuery) -> VerdictPage:
        place = {"before": query.before, "after": query.after}
        if query.is_oldest_first and query.is_top:
            place["after"] = _BEGIN
        async with self._store.reading() as connection:
            wanted = query.to_filter(time.time(), audience.sites)
            return await verdict_page(connection, wanted, size=PAGE_SIZE, **place)

    def _guidance(self, page: VerdictPage, query: ListQuery, summary: FleetSummary) -> dict[str, Any]:
        if page.is_partial:
            return no_match_yet()
        if query.filters:
            return no_match()
        if problems := self._bundle_problems():
            return not_ready(problems)
        return no_verdict(summary) if summary.devices else no_device()


def _ordered(rows: tuple[VerdictRow, ...], query: ListQuery) -> list[VerdictRow]:
    """Return the rows of a page in the order that is shown."""
    if query.is_oldest_first:
        return list(rows[::-1])
    if query.sort == "edge":
        return sorted(rows, key=lambda row: row.edge_p_value)
    if query.sort == "fused":
        return sorted(rows, key=lambda row: 2.0 if row.p_value is None else row.p_value)
    return list(rows)


def _turn(query: ListQuery, key: VerdictKey | None, *, is_onward: bool) -> str | None:
    """Return the address of the next or last page, None where there is none."""
    if key is None:
        return None
    is_newer = is_onward == query.is_oldest_first
    return replace(query, before=None if is_newer else key, after=key if is_newer else None).address()
