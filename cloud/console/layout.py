"""Frame of every page: navigation, theme, figures of the fleet and problems."""

import logging
from pathlib import Path

from nicegui import ui

from cloud.accounts.pages import theme
from cloud.console.elements import FleetStrip, TopBar
from cloud.console.snapshots import Snapshots, Tick
from cloud.store.fleet_queries import FleetSummary
from shared.errors import VedetteError

STYLE = Path(__file__).parent / "console.css"
_log = logging.getLogger(__name__)

# The script runs before the first paint, so that a dark page never flashes white.
_THEME_SCRIPT = """
<meta name="referrer" content="same-origin">
<script>
window.vedetteTheme = () => {
  const wanted = localStorage.getItem("vedette-theme");
  const dark = wanted === "dark" || (wanted !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
};
window.vedetteTheme();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", window.vedetteTheme);
</script>
"""
HEAD_HTML = _THEME_SCRIPT + f"<style>{theme()}{STYLE.read_text(encoding='utf-8')}</style>"


class Frame:
    """Top of a page; `path` is its entry in the navigation."""

    def __init__(self, snapshots: Snapshots, path: str) -> None:
        self._snapshots = snapshots
        ui.add_head_html(HEAD_HTML)
        self._bar = TopBar()
        self._bar.show(path=path, problem="", read_at_s=0.0)
        self._strip = FleetStrip()

    async def refresh(self) -> FleetSummary:
        """Show the newest figures; raises StorageError if the store cannot be read."""
        snapshot = await self._snapshots.newest()
        self._strip.show(summary=snapshot.view)
        self._bar.show(problem="", read_at_s=self._snapshots.checked_at_s)
        return snapshot.summary

    def follow(self, tick: Tick) -> None:
        """Call `tick` after each change of the store, until the browser has left the page."""
        ui.context.client.on_delete(self._snapshots.follow(tick))

    def show_problem(self, error: Exception) -> None:
        """Show a problem until the next successful refresh; log an unexpected one with its traceback."""
        if isinstance(error, VedetteError):
            self._bar.show(problem=str(error))
        else:
            _log.error("console page failed", exc_info=error)
            self._bar.show(problem=f"The console failed ({type(error).__name__}): see the service's log.")
