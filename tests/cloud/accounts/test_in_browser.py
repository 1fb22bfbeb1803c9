"""The pages of accounts in Chromium: by keyboard, on a phone, under their strict policy."""

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from cloud.rest import create_api
from cloud.service.origins import OriginCheck
from cloud.service.people import create_people_app, first_admin_link
from cloud.settings import CloudSettings
from cloud.store import open_store
from cloud.store.account_links import LinkPurpose, add_link
from cloud.store.sqlite.store import DATABASE_FILE
from shared.addresses import Address
from tests.accounts import CHEAP, sign_in
from tests.cloud.accounts.conftest import who
from tests.cloud.accounts.forms import PASSWORD
from tests.cloud.console.conftest import browser as browser
from tests.cloud.console.filled_store import empty_database

PHONE, DESKTOP = {"width": 320, "height": 640}, {"width": 1100, "height": 800}


class ServedAccounts:
    """Sign-in in front of a page, served in a thread; `do` runs a coroutine in its event loop."""

    def __init__(self, folder: Path) -> None:
        (folder / DATABASE_FILE).write_bytes(empty_database())
        self.settings = CloudSettings.model_validate({"data_dir": folder, "accounts": CHEAP})
        self.loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: self.loop.run_until_complete(self._serve(folder)), daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def console(self) -> Any:
        """The application behind sign-in."""
        return Starlette(routes=[Route("/", who)])

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(15)

    async def _serve(self, folder: Path) -> None:
        async with open_store(folder) as self.store:
            with socket.create_server(("127.0.0.1", 0)) as bound:
                address = Address(*bound.getsockname())
                self.url = f"http://{address}/"
                api = create_api(self.store, self.store, late_after_s=60.0)
                app = create_people_app(self.settings, self.store, self.store, api=api, console=self.console())
                options = uvicorn.Config(OriginCheck(app, address, ()), log_level="warning", proxy_headers=False)
                self._server = uvicorn.Server(options)
                task = asyncio.create_task(self._server.serve(sockets=[bound]))
                while not self._server.started:
                    await asyncio.sleep(0.02)
                self._ready.set()
                await task


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedAccounts]:
    accounts = ServedAccounts(tmp_path_factory.mktemp("accounts"))
    yield accounts
    accounts.stop()


def check_page(page: Any, problems: list[str]) -> None:
    """Language, one heading, a label for each field, no sideways scrolling, and nothing that the policy has refused."""
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1
    unnamed = (
        "[...document.querySelectorAll('input:not([type=hidden]):not([hidden])')].filter(one => !one.labels.length)"
    )
    assert page.evaluate(f"{unnamed}.length") == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert [problem for problem in problems if "Content Security Policy" in problem or "Error:" in problem] == []


def test_a_person_makes_the_first_account_and_signs_in_by_keyboard(served: ServedAccounts, browser: Any) -> None:
    link = served.do(first_admin_link(served.store, served.settings, served.url))
    for size, scheme in ((DESKTOP, "light"), (PHONE, "dark")):
        context = browser.new_context(viewport=size, color_scheme=scheme)
        page = context.new_page()
        problems: list[str] = []
        page.on("console", lambda message, found=problems: found.append(message.text))
        page.on("pageerror", lambda error, found=problems: found.append(f"Error: {error}"))
        if link:
            page.goto(link)
            check_page(page, problems)
            for key in ("ada", "Tab", PASSWORD, "Tab", PASSWORD, "Enter"):
                page.keyboard.press(key) if key in ("Tab", "Enter") else page.keyboard.type(key)
            page.wait_for_url(served.url)
            context.clear_cookies()
            link = None
        page.goto(served.url)
        assert page.url == f"{served.url}sign-in"
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        for password in ("wrong", PASSWORD):
            page.fill("#name", "ada")
            page.keyboard.press("Tab")
            page.keyboard.type(password)
            page.keyboard.press("Enter")
            if password == "wrong":
                assert page.locator("[role=alert]").text_content() == "Name or password is wrong."
                check_page(page, problems)
        page.wait_for_url(served.url)
        page.goto(f"{served.url}account")
        check_page(page, problems)
        page.click("text=Sign out")
        page.wait_for_url(f"{served.url}signed-out")
        check_page(page, problems)
        context.close()


def test_a_link_that_signs_in_needs_no_click(served: ServedAccounts, browser: Any) -> None:
    served.do(sign_in(served.store, name="demo"))
    served.do(add_link(served.store, "secret", LinkPurpose.SIGN_IN, valid_s=60, user_name="demo"))
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{served.url}link/secret")
    page.wait_for_url(served.url)
    assert '"demo"' in page.content()
    context.close()
