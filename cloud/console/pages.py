"""Pages for all devices and for a single verdict."""

import time
import uuid
from typing import Any

from nicegui import ui

from cloud.console.elements import DeviceList, VerdictDetail
from cloud.console.guidance import no_device
from cloud.console.layout import Frame
from cloud.console.reading import WAITING, read_detail
from cloud.console.snapshots import Snapshots
from cloud.console.views import device_on_page
from cloud.devices import read_devices
from cloud.store import Store
from cloud.store.registry import Registry

DEVICES_ON_PAGE = 100


class DevicesPage:
    """Open page of the devices after an id."""

    def __init__(self, store: Store, registry: Registry, snapshots: Snapshots, after: str) -> None:
        self._after = after[:64]
        self._store, self._registry, self._snapshots = store, registry, snapshots
        self.frame = Frame(snapshots, "/devices")
        with ui.element("main").classes("v-main"):
            self._list = DeviceList()
        self._list.show(devices=[], now_s=0.0, empty=None, after=self._after, following="")

    async def tick(self) -> None:
        """Update the page; a problem is shown, and the next tick tries again."""
        try:
            await self.frame.refresh()
            now_s, views, following = await self._snapshots.shared(("devices", self._after), self._read)
        except Exception as error:
            self.frame.show_problem(error)
            return
        empty = None if views or self._after else no_device()
        self._list.show(devices=views, now_s=now_s, empty=empty, after=self._after, following=following)

    async def _read(self) -> tuple[float, list[dict[str, Any]], str]:
        """Return the time, the view of each device, and its last id if more devices follow."""
        async with self._store.reading() as connection:
            now_s = time.time()
            found = await read_devices(
                connection,
                now_s=now_s,
                late_after_s=self._snapshots.late_after_s,
                after=self._after,
                size=DEVICES_ON_PAGE + 1,
            )
        following = found[DEVICES_ON_PAGE - 1].device_id if len(found) > DEVICES_ON_PAGE else ""
        return now_s, [device_on_page(device) for device in found[:DEVICES_ON_PAGE]], following


class DetailPage:
    """Open page of a single verdict."""

    def __init__(self, store: Store, snapshots: Snapshots, sample_id: uuid.UUID | None) -> None:
        self._store, self._sample_id = store, sample_id
        self.frame = Frame(snapshots, "")
        with ui.element("main").classes("v-main"):
            self._detail = VerdictDetail()
        self._detail.show(verdict=None, notice="Reading ...", whole_page=True)
        self.is_final = False

    async def tick(self) -> bool:
        """Show the verdict as soon as it exists; return whether the sample is known."""
        try:
            await self.frame.refresh()
            if self.is_final:
                return True
            if self._sample_id is None:
                verdict, notice = None, "This is not a sample id: follow a link in the list."
            else:
                verdict, notice = await read_detail(self._store, self._sample_id)
        except Exception as error:
            self.frame.show_problem(error)
            return True
        self.is_final = verdict is not None or notice != WAITING
        self._detail.show(verdict=verdict, notice=notice)
        return verdict is not None or notice == WAITING


async def build_devices_page(store: Store, registry: Registry, snapshots: Snapshots, after: str) -> None:
    """Build the page for one browser and keep it up to date."""
    page = DevicesPage(store, registry, snapshots, after)
    await page.tick()
    page.frame.follow(page.tick)


async def build_verdict_page(store: Store, snapshots: Snapshots, sample_id: str) -> None:
    """Build the page for one browser; it waits for a verdict that does not exist yet."""
    try:
        known: uuid.UUID | None = uuid.UUID(sample_id)
    except ValueError:
        known = None
    page = DetailPage(store, snapshots, known)
    if not await page.tick():
        ui.status_code(404)
    page.frame.follow(page.tick)
