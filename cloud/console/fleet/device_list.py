"""Order of the devices on their page: by health, those that need somebody first."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from cloud.console.views import device_on_page
from cloud.devices import HEALTH_ORDER, DeviceView

MAX_SORTED = 500  # devices that are read and sorted together; larger fleets have several such parts, by id
DEVICES_ON_PAGE = 50


@dataclass(frozen=True, slots=True)
class HealthCount:
    """Number of devices of one health, and the address that shows them alone."""

    health: str
    count: int
    address: str
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class DeviceList:
    """Devices of one page. The addresses lead to other pages; empty where there is none."""

    devices: list[dict[str, Any]]
    counts: list[HealthCount]
    total: int
    is_part: bool
    first: str
    more: str
    next_part: str


def device_page(found: Sequence[DeviceView], *, health: str, after: str, skip: int) -> DeviceList:
    """Return a page of the devices of one part of the fleet; `found` holds one more than MAX_SORTED if more follow."""
    part = found[:MAX_SORTED]
    counts = Counter(device.health for device in part)
    chips = [
        HealthCount(name, counts[name], _address(after=after, health="" if name == health else name), name == health)
        for name in HEALTH_ORDER
        if counts[name]
    ]
    chosen = sorted((device for device in part if health in ("", device.health)), key=_order)
    base = {"after": after, "health": health}
    is_last = skip + DEVICES_ON_PAGE >= len(chosen)
    return DeviceList(
        devices=[device_on_page(device) for device in chosen[skip : skip + DEVICES_ON_PAGE]],
        counts=chips,
        total=len(part),
        is_part=bool(after) or len(found) > MAX_SORTED,
        first=_address() if after or skip else "",
        more="" if is_last else _address(**base, skip=skip + DEVICES_ON_PAGE),
        next_part=_address(after=part[-1].device_id) if len(found) > MAX_SORTED and is_last else "",
    )


def _order(device: DeviceView) -> tuple[int, str]:
    return HEALTH_ORDER.index(device.health), device.device_id


def _address(**values: str | int) -> str:
    given = {name: value for name, value in values.items() if value}
    return f"/devices?{urlencode(given)}" if given else "/devices"
