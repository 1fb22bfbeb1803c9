"""Page "Live": the newest verdicts, filtered, and one of them in detail."""

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import Any, Self, TypeAlias
from urllib.parse import urlencode

from nicegui import ui
from nicegui.events import GenericEventArguments

from cloud.console.elements import FilterBar, VerdictDetail, VerdictTable
from cloud.console.guidance import BundleProblems, no_device, no_match, no_match_yet, no_verdict, not_ready
from cloud.console.layout import Frame
from cloud.console.reading import read_detail
from cloud.console.snapshots import Snapshots
from cloud.console.table import SPANS_S, filter_choices, table_columns
from cloud.console.views import row_view
from cloud.store import Store
from cloud.store.fleet_queries import FleetSummary, device_ids
from cloud.store.queries import VerdictPage, count_newer, key_of, verdict_page
from cloud.store.verdict_keys import VerdictFilter, VerdictKey
from shared.modality import Modality
from shared.samples import Decision, Route

PAGE_SIZE = 50
MAX_CHOICES = 500  # devices in the filter; others are in its address: /?device=ID


@dataclass(frozen=True, slots=True)
class PageFilters:
    """Filters in the address bar; "" does not restrict, and unknown values become ""."""

    device: str = ""
    modality: str = ""
    decision: str = ""
    route: str = ""
    span: str = ""
    text: str = ""

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Return the filters in values from a browser."""

        def choice(name: str, known: type[Modality] | type[Decision] | type[Route] | dict[str, float]) -> str:
            value = values.get(name, "")
            return value if isinstance(value, str) and value in set(known) else ""

        texts = {name: str(values.get(name) or "")[:200] for name in ("device", "text")}
        return cls(
            modality=choice("modality", Modality),
            decision=choice("decision", Decision),
            route=choice("route", Route),
            span=choice("span", SPANS_S),
            **texts,
        )

    def set_values(self) -> dict[str, str]:
        """Return the filters that restrict."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if getattr(self, name)}

    def to_filter(self, now_s: float) -> VerdictFilter:
        """Return the filter for the store."""
        return VerdictFilter(
            device_id=self.device,
            modality=Modality(self.modality) if self.modality else None,
            decision=Decision(self.decision) if self.decision else None,
            route=Route(self.route) if self.route else None,
            text=self.text.strip(),
            since_s=now_s - SPANS_S[self.span] if self.span else None,
        )


ListVersion: TypeAlias = tuple[VerdictKey | None, int]
"""Newest verdict and number of devices: while they stay the same, every list does."""


@dataclass(frozen=True, slots=True)
class PagePosition:
    """Position in the list: at its top, or before or after a key."""

    before: VerdictKey | None = None
    after: VerdictKey | None = None

    @property
    def is_top(self) -> bool:
        """Whether the page follows new verdicts."""
        return self.before is None and self.after is None


@dataclass(frozen=True, slots=True)
class ListedPage:
    """One page of verdicts as stored and as shown, and all devices for the filter."""

    page: VerdictPage
    rows: list[dict[str, Any]]
    device_ids: tuple[str, ...]


class LivePage:
    """One open page: reads the store only after a change, and does not move while an operator looks."""

    def __init__(
        self, store: Store, snapshots: Snapshots, wanted: PageFilters, bundle_problems: BundleProblems
    ) -> None:
        self._store, self._snapshots, self._bundle_problems = store, snapshots, bundle_problems
        self._wanted = wanted
        self._place = PagePosition()
        self._page = VerdictPage((), None, None)
        self._shown: ListVersion | None = None  # when the list was read; None: read it again
        self._counted: ListVersion | None = None
        self._held = False
        self._turned = 0
        self._opened = ""
        self._busy = asyncio.Lock()
        self.frame = Frame(snapshots, "/")
        with ui.element("main").classes("v-main"):
            self._filters = FilterBar()
            with ui.element("div").classes("v-split"):
                self._table = VerdictTable()
                self._detail = VerdictDetail()
        self._filters.show(filters=wanted.set_values(), choices=filter_choices([]))
        self._table.show(
            columns=table_columns(),
            rows=[],
            has_older=False,
            has_newer=False,
            waiting=0,
            opened="",
            empty=None,
            turned=0,
        )
        self._detail.show(verdict=None, notice="", whole_page=False)
        self._filters.on("change", self._on_change)
        self._table.on("open", self._on_open)
        self._table.on("turn", self._on_turn)
        self._table.on("hold", self._on_hold)
        self._detail.on("close", lambda: self._close())

    async def tick(self) -> None:
        """Update the page; a problem is shown, and the next tick tries again."""
        if not self._busy.locked():
            await self._update()

    async def _update(self, *, reread: bool = False) -> None:
        """Update the page after a running update, which may use old filters; `reread`: read the list in any case."""
        async with self._busy:
            if reread:
                self._shown = None
            try:
                await self._refresh()
            except Exception as error:
                self.frame.show_problem(error)

    async def _refresh(self) -> None:
        summary = (await self._snapshots.newest()).summary
        await self._follow(summary)
        await self.frame.refresh()  # after the list, so that both travel in one message
        if not self._page.rows:
            self._table.show(empty=self._guidance(summary))

    async def _follow(self, summary: FleetSummary) -> None:
        mark = (summary.newest, summary.devices)
        if self._shown is None or (self._shown != mark and self._follows()):
            await self._load()
            self._shown = self._counted = mark
        elif self._counted != mark and not self._follows():
            await self._count()
            self._counted = mark

    def _follows(self) -> bool:
        return self._place.is_top and not self._held

    async def _load(self) -> None:
        shown = await self._read(self._place)
        if self._place.after is not None and (shown.page.newer is None or not shown.page.rows):
            self._place = PagePosition()  # at the top again: follow new verdicts
            shown = await self._read(self._place)
        self._page = shown.page
        names = {*shown.device_ids, self._wanted.device} - {""}
        self._filters.show(choices=filter_choices(sorted(names)))
        self._table.show(
            rows=shown.rows,
            has_older=shown.page.older is not None,
            has_newer=not self._place.is_top,
            waiting=0,
            turned=self._turned,
            empty=None,
        )

    async def _read(self, place: PagePosition) -> ListedPage:
        """Return one page of the list; pages with the same filters and place share it."""
        wanted = self._wanted

        async def read() -> ListedPage:
            async with self._store.reading() as connection:
                page = await verdict_page(
                    connection, wanted.to_filter(time.time()), before=place.before, after=place.after, size=PAGE_SIZE
                )
                return ListedPage(page, [row_view(row) for row in page.rows], await device_ids(connection, MAX_CHOICES))

        return await self._snapshots.shared((wanted, place), read)

    async def _count(self) -> None:
        """Show the number of new verdicts without moving the list."""
        top = key_of(self._page.rows[0]) if self._page.rows else None
        async with self._store.reading() as connection:
            waiting = await count_newer(connection, self._wanted.to_filter(time.time()), top)
        self._table.show(waiting=waiting if self._place.is_top else 0)

    def _guidance(self, summary: FleetSummary) -> dict[str, Any]:
        if self._page.is_partial:
            return no_match_yet()
        if self._wanted.set_values():
            return no_match()
        if problems := self._bundle_problems():
            return not_ready(problems)
        return no_verdict(summary) if summary.devices else no_device()

    async def _on_change(self, event: GenericEventArguments) -> None:
        self._wanted = PageFilters.parse(event.args if isinstance(event.args, dict) else {})
        self._place = PagePosition()
        self._turned += 1
        values = self._wanted.set_values()
        self._filters.show(filters=values)
        ui.navigate.history.replace("/?" + urlencode(values) if values else "/")
        await self._update(reread=True)

    async def _on_turn(self, event: GenericEventArguments) -> None:
        older, newer = self._page.older, self._page.newer
        if event.args == "older" and older is not None:
            self._place = PagePosition(before=older)
        elif event.args == "newer" and newer is not None and not self._place.is_top:
            self._place = PagePosition(after=newer)
        else:
            self._place = PagePosition()
        self._turned += 1
        await self._update(reread=True)

    async def _on_hold(self, event: GenericEventArguments) -> None:
        self._held = event.args is True
        if not self._held:
            await self._update()  # the next tick may be ten seconds away

    async def _on_open(self, event: GenericEventArguments) -> None:
        try:
            sample_id = uuid.UUID(str(event.args)) if event.args else None
        except ValueError:
            sample_id = None
        if sample_id is None:
            self._close()
            return
        self._opened = str(sample_id)
        self._table.show(opened=self._opened)
        try:
            verdict, notice = await read_detail(self._store, sample_id)
        except Exception as error:
            self.frame.show_problem(error)
            verdict, notice = None, "This verdict could not be read: see the problem at the top of the page."
        if self._opened == str(sample_id):  # another one may have been opened meanwhile
            self._detail.show(verdict=verdict, notice=notice)

    def _close(self) -> None:
        self._opened = ""
        self._table.show(opened="")
        self._detail.show(verdict=None, notice="")


async def build_live_page(
    store: Store, snapshots: Snapshots, values: dict[str, Any], bundle_problems: BundleProblems
) -> None:
    """Build the page for one browser and keep it up to date."""
    page = LivePage(store, snapshots, PageFilters.parse(values), bundle_problems)
    await page.tick()
    page.frame.follow(page.tick)
