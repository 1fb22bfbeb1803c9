"""Pages in Chromium: opened, watched for errors, and waited for."""

import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

ROW = "tr[data-sample]"
CHOSEN = "tr.v-chosen"


class Tabs:
    """Tabs of one browser profile on one console; `problems` collects what must not happen in any of them."""

    def __init__(self, url: str, profile: Any) -> None:
        self.problems: list[str] = []
        self._url, self._profile = url, profile
        self._pages: list[Any] = []
        self._crashed: list[Any] = []

    def __call__(self, path: str = "/verdicts", *, width: int = 1280, dark: bool = False, at: str = ROW) -> Any:
        """Open a path in a tab of its own, and wait until it shows `at` and follows the service."""
        page = self._profile.new_page()
        self._pages.append(page)
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme="dark" if dark else "light")
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: self.problems.append(f"error in the page: {error}"))
        page.on("crash", self._on_crash)
        page.on("console", self._on_console)
        page.on("request", lambda request: self._on_request(request.url))
        page.goto(self._url + path)
        page.wait_for_selector(at)
        wait_for(page, "document.documentElement.dataset.live || !document.querySelector('.v-strip')")
        return page

    def close(self) -> None:
        """Close all tabs."""
        for page in self._pages:
            if page.is_closed():
                continue
            if page not in self._crashed:
                page.evaluate("localStorage.clear()")
            page.close()

    def _on_crash(self, page: Any) -> None:
        free_bytes = {path: shutil.disk_usage(path).free for path in (tempfile.gettempdir(), "/dev/shm")}
        self._crashed.append(page)
        self.problems.append(f"the renderer of {page.url} crashed; free bytes: {free_bytes}")

    def _on_console(self, message: Any) -> None:
        if "Content Security Policy" in message.text:
            self.problems.append(message.text)

    def _on_request(self, url: str) -> None:
        if not url.startswith((self._url, "data:", "blob:")):
            self.problems.append(url)


def samples(page: Any) -> list[str]:
    """Return the ids of the rows on a page, in order."""
    found: list[str] = page.eval_on_selector_all(ROW, "rows => rows.map(row => row.dataset.sample)")
    return found


def wait_until(page: Any, condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition is true."""
    end_s = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < end_s, what
        page.wait_for_timeout(50)


def wait_for(page: Any, expression: str) -> None:
    """Wait until an expression is true; Playwright's own function needs 'unsafe-eval', which the policy refuses."""
    wait_until(page, lambda: bool(page.evaluate(expression)), expression)
