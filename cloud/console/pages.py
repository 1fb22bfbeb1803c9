"""Pages for all devices and for a single verdict."""

import time
import uuid

from nicegui import ui

from cloud.console.elements import DeviceList, VerdictDetail
from cloud.console.guidance import no_device
from cloud.console.layout import Frame
from cloud.console.reading import WAITING, read_detail
from cloud.console.summary_cache import SummaryCache
from cloud.devices import device_view
from cloud.store import Store
from cloud.store.fleet_queries import device_rows
from cloud.store.registry import Registry
from cloud.store.releases import wanted_by_device

REFRESH_S = 2.0


class DevicesPage:
    """Open page of all devices."""

    def __init__(self, store: Store, registry: Registry, summaries: SummaryCache) -> None:
        self._store, self._registry, self._summaries = store, registry, summaries
        self._frame = Frame(summaries, "/devices")
        with ui.element("main").classes("v-main"):
            self._list = DeviceList()
        self._list.show(devices=[], now_s=0.0, empty=None)

    async def tick(self) -> None:
        """Update the page; a problem is shown, and the next tick tries again."""
        try:
            await self._frame.refresh()
            async with self._store.reading() as connection:
                rows = await device_rows(connection)
                wanted = await wanted_by_device(connection)
        except Exception as error:
            self._frame.show_problem(error)
            return
        now_s = time.time()
        late_after_s = self._summaries.late_after_s
        views = [
            device_view(row, wanted.of(row.device_id, row.group), now_s=now_s, late_after_s=late_after_s)
            for row in rows
        ]
        self._list.show(devices=views, now_s=now_s, empty=None if views else no_device())


class DetailPage:
    """Open page of a single verdict."""

    def __init__(self, store: Store, summaries: SummaryCache, sample_id: uuid.UUID | None) -> None:
        self._store, self._sample_id = store, sample_id
        self._frame = Frame(summaries, "")
        with ui.element("main").classes("v-main"):
            self._detail = VerdictDetail()
        self._detail.show(verdict=None, notice="Reading ...", whole_page=True)
        self.is_final = False

    async def tick(self) -> bool:
        """Show the verdict as soon as it exists; return whether the sample is known."""
        try:
            await self._frame.refresh()
            if self.is_final:
                return True
            if self._sample_id is None:
                verdict, notice = None, "This is not a sample id: follow a link in the list."
            else:
                verdict, notice = await read_detail(self._store, self._sample_id)
        except Exception as error:
            self._frame.show_problem(error)
            return True
        self.is_final = verdict is not None or notice != WAITING
        self._detail.show(verdict=verdict, notice=notice)
        return verdict is not None or notice == WAITING


async def build_devices_page(store: Store, registry: Registry, summaries: SummaryCache) -> None:
    """Build the page for one browser and keep it up to date."""
    page = DevicesPage(store, registry, summaries)
    await page.tick()
    ui.timer(REFRESH_S, page.tick, immediate=False)


async def build_verdict_page(store: Store, summaries: SummaryCache, sample_id: str) -> None:
    """Build the page for one browser; it waits for a verdict that does not exist yet."""
    try:
        known: uuid.UUID | None = uuid.UUID(sample_id)
    except ValueError:
        known = None
    page = DetailPage(store, summaries, known)
    if not await page.tick():
        ui.status_code(404)
    ui.timer(REFRESH_S, page.tick, immediate=False)
