"""Chromium whose contexts close within a limit: one that does not is ended, and the next context gets another one."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

CLOSE_S = 15.0


class LimitedBrowser:
    """A browser that is started when a context is wanted and none runs.

    A renderer that crashes may let Playwright wait for the end of its page without a limit. A close that takes longer
    than CLOSE_S ends the browser's process, and fails the test.
    """

    def __init__(self, chromium: Any, **options: Any) -> None:
        self._chromium, self._options = chromium, options
        self._browser: Any = None
        self.pid = 0

    def new_context(self, **options: Any) -> Any:
        """Return a new context of the running browser; it and its pages close within the limit."""
        if self._browser is None or not self._browser.is_connected():
            self._browser = self._chromium.launch(**self._options)
            self.pid = process_id(self._browser)
        context = self._browser.new_context(**options)
        new_page = context.new_page

        def limited_page() -> Any:
            page = new_page()
            self._limit(page, "page")
            return page

        context.new_page = limited_page
        self._limit(context, "context")
        return context

    def close(self) -> None:
        """End the browser."""
        if self._browser is not None:
            with self._limited("browser"):
                self._browser.close()

    def _limit(self, closable: Any, kind: str) -> None:
        close = closable.close

        def limited(**options: Any) -> None:
            with self._limited(kind):
                close(**options)

        closable.close = limited

    @contextlib.contextmanager
    def _limited(self, kind: str) -> Iterator[None]:
        """End the browser if the block takes longer than the limit, and fail."""
        pid, ended, is_over = self.pid, threading.Event(), threading.Event()

        def watch() -> None:
            if not ended.wait(CLOSE_S):
                is_over.set()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(os.getpgid(pid), signal.SIGKILL)  # its own group, with a script that may have started it

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
        except Exception:  # of Playwright, because the browser has gone
            if not is_over.is_set():
                raise
        finally:
            ended.set()
            watching.join()
        if is_over.is_set():
            pytest.fail(
                f"The {kind} did not close within {CLOSE_S:g} s: Chromium hangs, as after a renderer has crashed. Its "
                f"process {pid} was ended; the next context gets a new browser."
            )


def process_id(browser: Any) -> int:
    """Return the process id of a browser, as it knows it itself."""
    session = browser.new_browser_cdp_session()
    found = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    (pid,) = [process["id"] for process in found if process["type"] == "browser"]
    return int(pid)
