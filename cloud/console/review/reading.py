"""Contents of the review page: read from the store, in words, and as HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.accounts.identity import SignedIn
from cloud.console.guidance import BundleProblems, no_device, no_item, no_verdict, not_ready
from cloud.console.rendering import render
from cloud.console.review.item_view import DECISION_WORDS, TABS, item_view, member_view
from cloud.console.review.mute_view import where_words
from cloud.console.review.query import MUTED, ODDS, ReviewQuery, key_in, key_text
from cloud.console.snapshots import Snapshots
from cloud.store import Store
from cloud.store.defect_classes import listed_classes
from cloud.store.fleet_queries import FleetSummary
from cloud.store.missed_reports import StoredReport, report_page
from cloud.store.review.counts import MAX_MUTED, LeftCounts, OpenCounts, left_counts, open_counts
from cloud.store.review.decisions import StoredDecision, decisions_on
from cloud.store.review.item_filter import ItemState
from cloud.store.review.items import count_newer_items, item_page, items_by_number, member_rows, newest_item
from cloud.store.review.mutes import mutes_by_number
from cloud.store.review.saved_views import saved_views
from cloud.store.review.severity import Severity
from cloud.user_roles import UserRole
from shared.modality import Modality

PAGE_SIZE = 50
SHOWN_MEMBERS = 24
REPORTS = 50
MAX_DEVICES = 200
STATES = {
    ItemState.LEFT: "Left to review",
    ItemState.ALL: "All items",
    ItemState.REVIEWED: "Reviewed",
    ItemState.REAL: "Real",
    ItemState.FALSE_ALARM: "False alarms",
    ItemState.UNSURE: "Unsure",
}


@dataclass(frozen=True, slots=True)
class ReviewChanges:
    """Changes of an open page: tabs and side as HTML, newer items, and the rows that differ, by number."""

    tabs: str
    side: str
    new: int
    rows: dict[int, str]


class ReviewReader:
    """Reader of the page for the person behind a request."""

    def __init__(self, store: Store, bundle_problems: BundleProblems) -> None:
        self._store, self._bundle_problems = store, bundle_problems

    async def inbox(self, person: SignedIn, query: ReviewQuery, summary: FleetSummary) -> str:
        """Return side, tabs and one page of the list; raises StorageError."""
        wanted = query.to_filter(person)
        async with self._store.reading() as connection:
            page = await item_page(connection, wanted, query.order, after=key_in(query.after), size=PAGE_SIZE)
            left = await left_counts(connection, wanted)
            newest = await newest_item(connection)
            views = await saved_views(connection, wanted.actor) if person.name else []
            reports = await self._reports(connection, person, query)
        following = key_text(page.following)
        empty = None if page.items else self._guidance(query, summary, left)
        return render(
            "review/inbox.html",
            query=query,
            items=[item_view(item) for item in page.items],
            newest=newest,
            address=query.address(after=query.after),
            more=query.address(after=following) if following else "",
            views=[{"name": view.name, "address": f"/?{view.query}" if view.query else "/"} for view in views],
            can_mark=bool(person.name),
            can_decide=can_decide(person),
            empty=empty,
            reports=reports,
            **_navigation(query, left),
        )

    async def _reports(
        self, connection: AsyncConnection, person: SignedIn, query: ReviewQuery
    ) -> tuple[StoredReport, ...]:
        """Return the newest reported misses for the tab that shows them."""
        if query.severity is not Severity.MISSED:
            return ()
        return await report_page(connection, device_id=query.device, site=query.site, sites=person.sites, size=REPORTS)

    async def changes(
        self, person: SignedIn, query: ReviewQuery, since: int, shown: Mapping[int, str], snapshots: Snapshots
    ) -> ReviewChanges:
        """Return what has changed since the page was read with the newest item `since`; raises StorageError.

        `shown`: marks of the items on the page, by number. Counts that everybody shares are read once a snapshot.
        """
        wanted = query.to_filter(person)

        async def opened() -> OpenCounts:
            async with self._store.reading() as connection:
                return await open_counts(connection, wanted)

        counted = await snapshots.shared(("open items", replace(wanted.anywhere(), actor="")), opened)
        async with self._store.reading() as connection:
            left = await left_counts(connection, wanted, counted)
            new = await count_newer_items(connection, wanted, since)
            items = await items_by_number(connection, list(shown), wanted.actor, person.sites)
        navigation = _navigation(query, left)
        views = [(item.number, item_view(item)) for item in items]
        return ReviewChanges(
            render("review/tabs.html", query=query, **navigation),
            render("review/places.html", query=query, **navigation),
            new,
            {
                number: render("review/row.html", item=view, can_mark=bool(person.name))
                for number, view in views
                if view["mark"] != shown[number]
            },
        )

    async def panel(self, person: SignedIn, number: int) -> tuple[int, str]:
        """Return status and HTML of one opened item; raises StorageError."""
        actor = person.actor if person.name else ""
        async with self._store.reading() as connection:
            found = await items_by_number(connection, [number], actor, person.sites)
            members = await member_rows(connection, number, SHOWN_MEMBERS) if found else ()
            history = await decisions_on(connection, number) if found else []
            classes = await listed_classes(connection)
            muted_by = found[0].muted_by if found else None
            mute = (await mutes_by_number(connection, [muted_by])).get(muted_by) if muted_by is not None else None
        if not found:
            return 404, render("review/panel.html", item=None, number=number)
        html = render(
            "review/panel.html",
            item=item_view(found[0]),
            number=number,
            members=[member_view(row) for row in members],
            history=[_decision(decision) for decision in history],
            classes=[each.name for each in classes],
            mute=mute,
            where=where_words(mute.pattern) if mute is not None else "",
            can_mark=bool(person.name),
            can_decide=can_decide(person),
        )
        return 200, html

    def _guidance(self, query: ReviewQuery, summary: FleetSummary, left: LeftCounts) -> dict[str, Any]:
        if not summary.devices:
            return no_device()
        if problems := self._bundle_problems():
            return not_ready(problems)
        if not sum(summary.decisions.values()):
            return no_verdict(summary)
        elsewhere = [(TABS[severity], count) for severity, count in left.by_severity.items() if count]
        return no_item(bool(query.filters), elsewhere)


def can_decide(person: SignedIn) -> bool:
    """Return whether the person may decide; nobody may where sign-in is off."""
    return bool(person.name) and person.role.covers(UserRole.OPERATOR)


def filter_choices(query: ReviewQuery, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the drop-down filters: name, label and (value, text) of each option, the first one without restriction."""
    names = [*classes, *({query.defect_class} - {"", *classes})]
    odds = [(str(value), f"1 in {value:,}") for value in ODDS]
    states = [("" if state is ItemState.LEFT else state.value, words) for state, words in STATES.items()]
    return [
        {"name": "state", "label": "Show", "options": states},
        {"name": "defect_class", "label": "Class", "options": [("", "Any class"), *((name, name) for name in names)]},
        {"name": "odds", "label": "Odder than", "options": [("", "Any oddness"), *odds]},
        {
            "name": "modality",
            "label": "Modality",
            "options": [("", "All modalities"), *((name.value, name.value.capitalize()) for name in Modality)],
        },
        {
            "name": "sort",
            "label": "Order",
            "options": [("", "Newest first"), ("oddest", "Oddest first"), ("oldest", "Oldest first")],
        },
    ]


def _navigation(query: ReviewQuery, left: LeftCounts) -> dict[str, Any]:
    """Return tabs, sites and devices with the number of unreviewed items in each."""
    tabs = [
        {
            "name": severity.value,
            "words": words.partition(" ")[0],
            "more": words.partition(" ")[2],
            "left": left.by_severity[severity],
            "address": query.address(tab="" if severity is Severity.ALARM else severity.value),
            "is_chosen": severity is query.severity,
        }
        for severity, words in TABS.items()
    ]
    muted = {
        "name": MUTED,
        "words": "Muted",
        "more": "",
        "left": f"{MAX_MUTED}+" if left.muted >= MAX_MUTED else left.muted,
        "address": query.address(tab=MUTED),
        "is_chosen": query.is_muted,
    }
    tabs.append(muted)
    sites = _places(query, "site", left.by_site)
    return {
        "tabs": tabs,
        "sites": sites if len(sites) > 1 or query.site else [],
        "devices": _places(query, "device", left.by_device),
    }


def _places(query: ReviewQuery, name: str, left: Any) -> list[dict[str, Any]]:
    chosen = getattr(query, name)
    counts = {**({chosen: 0} if chosen else {}), **left}
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_DEVICES]
    return [
        {
            "words": place,
            "left": count,
            "is_chosen": place == chosen,
            "address": query.address(**{name: "" if place == chosen else place}),
        }
        for place, count in ordered
    ]


def _decision(decision: StoredDecision) -> dict[str, Any]:
    words = DECISION_WORDS[decision.decision] if decision.decision is not None else ""
    if decision.undoes is not None:
        words = f"undone: {words}" if words else "undone"
    words += f", {decision.defect_class}" if decision.defect_class else ""
    return {"words": words, "author": decision.author, "at_s": decision.at_s, "note": decision.note}
