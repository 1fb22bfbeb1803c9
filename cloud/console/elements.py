"""Elements of the console: Vue components in this folder, fed with JSON from `cloud.console.views`.

Vue's templates escape all text, so text from a device cannot become markup.
"""

from typing import Any

from nicegui import ui

_FORMAT = ("components/vedette_format.js",)


class ConsoleElement(ui.element):
    """Element whose properties are set together and sent only if one of them changed."""

    def show(self, **properties: Any) -> None:
        """Set these properties."""
        changed = {
            name: value for name, value in properties.items() if name not in self._props or self._props[name] != value
        }
        if changed:
            self._props.update(changed)
            self.update()


class TopBar(ConsoleElement, component="components/top_bar.js", dependencies=list(_FORMAT)):
    """Name, pages, freshness and theme. Properties: path, problem, read_at_s."""


class FleetStrip(ConsoleElement, component="components/fleet_strip.js", dependencies=list(_FORMAT)):
    """Figures of the fleet. Property: summary."""


class FilterBar(ConsoleElement, component="components/filter_bar.js"):
    """Filters of the list. Properties: filters, choices. Event `change` with the filters."""


class VerdictTable(ConsoleElement, component="components/verdict_table.js", dependencies=list(_FORMAT)):
    """One page of verdicts. Properties: columns, rows, has_older, has_newer, waiting, opened, empty, turned.

    Events: `open` with a sample id or "", `turn` with "newest", "newer" or "older", `hold` with a truth value.
    """


class VerdictDetail(ConsoleElement, component="components/verdict_detail.js", dependencies=list(_FORMAT)):
    """One verdict in full. Properties: verdict, notice, whole_page. Event `close`."""


class DeviceList(ConsoleElement, component="components/device_list.js", dependencies=list(_FORMAT)):
    """One page of devices. Properties: devices, now_s, empty, after, following (ids of devices, "" for none)."""
