"""A whole service in a thread, and people who sign in at its console with a browser."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.accounts.passwords import Passwords
from cloud.service.main import _make_console
from cloud.serving.analysis import Analysis
from cloud.store.users import add_user
from cloud.user_roles import UserRole
from tests.accounts import CHEAP
from tests.cloud.console.browsing import Tabs
from tests.cloud.service.harness import running, settings_for

PASSWORD = "correct horse battery"


class ServedService:
    """A whole service in a thread; `do` runs a coroutine in its event loop."""

    def __init__(
        self,
        folder: Path,
        key: Ed25519PrivateKey | None = None,
        load_analysis: Callable[..., Any] = Analysis.load,
        **settings: Any,
    ) -> None:
        self.key = key or Ed25519PrivateKey.generate()
        self._settings, self._load_analysis = settings, load_analysis
        self.loop = asyncio.new_event_loop()
        self._ready, self._end = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: self.loop.run_until_complete(self._serve(folder)), daemon=True)
        self._thread.start()
        assert self._ready.wait(60), "the service did not start"

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)

    async def prepare(self) -> None:
        """Fill the store before the first test."""

    async def _serve(self, folder: Path) -> None:
        settings = settings_for(folder, accounts=CHEAP, **self._settings)
        async with running(settings, self.key, self._load_analysis, make_console=_make_console) as self.cloud:
            await self.prepare()
            self._ready.set()
            await self._end.wait()

    @property
    def url(self) -> str:
        return self.cloud.service.addresses.console_url.rstrip("/")


class Person:
    """A person with an account and a browser, who signs in by keyboard; `tabs` collects what failed in its pages."""

    def __init__(self, served: ServedService, browser: Any, name: str, role: UserRole) -> None:
        served.do(_add_person(served, name, role))
        self.context = browser.new_context(viewport={"width": 1280, "height": 800})
        self.tabs = Tabs(served.url, self.context)
        self.page = self.tabs("/", at="#name")
        self.page.set_default_timeout(60_000)  # a busy machine
        for key in (name, "Tab", PASSWORD, "Enter"):
            self.page.keyboard.press(key) if key in ("Tab", "Enter") else self.page.keyboard.type(key)
        self.page.wait_for_selector(f".v-person:has-text('{name}')")


async def _add_person(served: ServedService, name: str, role: UserRole) -> None:
    password_hash = await Passwords(served.cloud.settings.accounts).hash(PASSWORD)
    async with served.cloud.service.store.writing() as connection:
        await add_user(connection, name, role, actor="test", password_hash=password_hash)
