"""A console over a filled store, served in a thread, and a browser to use it with."""

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvicorn

from cloud.bench.console_browser import chromium_path
from cloud.console import create_app
from tests.cloud.console.browsing import Tabs
from tests.cloud.console.filled_store import ARTERY, CAMERA, DOOR, SHUTTLE, Fleet, open_store
from tests.cloud.console.limited_browser import LimitedBrowser

Result = TypeVar("Result")
CHROMIUM = chromium_path()
BROWSER_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class RunningConsole:
    """A console that answers at `url`; `do` runs a coroutine in its event loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(30), "the console did not start"

    def do(self, work: Coroutine[Any, Any, Result], timeout_s: float = 60.0) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(15)
        assert not self._thread.is_alive(), "the console did not stop"

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self.bundle_problems: dict[str, str] = {}
        self.store, registry = open_store(self.folder)
        self.fleet = Fleet(self.store, registry)
        with socket.create_server(("127.0.0.1", 0)) as bound:
            self.url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            settings = uvicorn.Config(
                create_app(self.store, registry, bundle_problems=lambda: self.bundle_problems),
                log_level="warning",
                ws="none",
                timeout_graceful_shutdown=1,
            )
            self.server = uvicorn.Server(settings)
            task = asyncio.create_task(self.server.serve(sockets=[bound]))
            while not self.server.started:
                await asyncio.sleep(0.02)
            self._ready.set()
            await task
        await self.store.close()


@contextmanager
def running_console(folder: Path) -> Iterator[RunningConsole]:
    console = RunningConsole(folder)
    try:
        yield console
    finally:
        console.stop()


@pytest.fixture(scope="module")  # while it is open, no other test may run an event loop in this thread
def browser() -> Iterator[Any]:
    if not CHROMIUM:
        pytest.skip("no Chromium here: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        opened = LimitedBrowser(playwright.chromium, executable_path=CHROMIUM, args=list(BROWSER_OPTIONS))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[RunningConsole]:
    with running_console(tmp_path_factory.mktemp("console")) as console:
        console.do(fill(console.fleet))
        yield console


async def fill(fleet: Fleet) -> None:
    await fleet.enrol()
    await fleet.send_many(54)
    for kind in (SHUTTLE, ARTERY, CAMERA, DOOR):
        await fleet.send(kind, odd=True)


class Profile:
    """A profile whose cache keeps the console's scripts: to compile them takes most of the time of a page."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self._context = browser.new_context()

    def new_page(self) -> Any:
        """Open a page; in a new profile if the browser was ended because it hung."""
        if not self._context.browser.is_connected():
            self._context = self._browser.new_context()
        return self._context.new_page()

    def on(self, event: str, act: Any) -> None:
        """Call `act` at each event of the present profile."""
        self._context.on(event, act)


@pytest.fixture(scope="module")
def profile(browser: Any) -> Profile:
    return Profile(browser)


@pytest.fixture
def open_page(console: RunningConsole, profile: Profile) -> Iterator[Tabs]:
    """Open a path in a tab of its own; at the end nothing may have failed in it or left the machine."""
    tabs = Tabs(console.url, profile)
    yield tabs
    tabs.close()
    assert tabs.problems == []
