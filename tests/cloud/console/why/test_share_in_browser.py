"""An operator shares a verdict from its page, somebody without an account opens it, and the operator revokes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from cloud.accounts.requests import SESSION_COOKIE
from cloud.console import create_app
from cloud.store.registry import Registry
from cloud.user_roles import UserRole
from tests.accounts import sign_in
from tests.cloud.accounts.test_in_browser import ServedAccounts
from tests.cloud.console.filled_store import CAMERA, KEY, Fleet

DIALOG = ".v-share-dialog[open]"


class ServedConsole(ServedAccounts):
    """The console behind sign-in."""

    def console(self) -> Any:
        self.registry = Registry(self.store, self.settings.store, KEY.public_key())
        return create_app(self.store, self.registry)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedConsole]:
    console = ServedConsole(tmp_path_factory.mktemp("sharing"))
    yield console
    console.stop()


@pytest.fixture(scope="module")
def address(served: ServedConsole) -> str:
    async def fill() -> str:
        fleet = Fleet(served.store, served.registry)
        await fleet.enrol()
        return f"{served.url}verdict/{(await fleet.send(CAMERA, odd=True)).sample_id}"

    return str(served.do(fill()))


def open_as(served: ServedConsole, browser: Any, role: UserRole, address: str, **options: Any) -> Any:
    context = browser.new_context(**options)
    secret = served.do(sign_in(served.store, role)).secret
    context.add_cookies([{"name": SESSION_COOKIE, "value": secret, "url": served.url}])
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".v-why-main")
    return page


def test_a_verdict_is_shared_opened_by_a_stranger_and_revoked(
    served: ServedConsole, browser: Any, address: str, tmp_path: Path
) -> None:
    page = open_as(served, browser, UserRole.OPERATOR, address)
    page.click("text=Share")
    page.wait_for_selector(DIALOG)
    page.select_option("select[name=days]", "1")
    page.click("text=Make a link")
    page.wait_for_selector(".v-shares li:has-text('not opened yet')")
    link = page.input_value(".v-share-new input")
    assert link.startswith(f"{served.url}shared/")
    found = Axe().run(page, context=DIALOG, options={"resultTypes": ["violations"]}).response["violations"]
    assert [rule["id"] for rule in found if rule["impact"] in ("serious", "critical")] == []
    stranger = browser.new_context().new_page()
    assert stranger.goto(link).status == 200
    stranger.wait_for_selector(".v-canvas")
    assert stranger.goto(address).url.startswith(f"{served.url}sign-in")
    page.keyboard.press("Escape")
    page.wait_for_selector(DIALOG, state="detached")
    page.click("text=Share")
    page.wait_for_selector(".v-shares li:has-text('opened once')")
    page.click("text=Revoke")
    page.wait_for_selector(".v-shares li", state="detached")
    assert stranger.goto(link).status == 404
    assert "revoked" in stranger.inner_text("main")
    stranger.context.close()
    page.context.close()


def test_a_viewer_is_offered_exports_and_no_links(served: ServedConsole, browser: Any, address: str) -> None:
    page = open_as(served, browser, UserRole.VIEWER, address)
    assert page.locator(".v-share").count() == 0
    with page.expect_download() as download:
        page.click("text=PDF")
    assert Path(download.value.path()).read_bytes().startswith(b"%PDF-")
    page.context.close()


def test_a_failing_request_is_said_in_the_dialog(served: ServedConsole, browser: Any, address: str) -> None:
    page = open_as(served, browser, UserRole.OPERATOR, address, viewport={"width": 390, "height": 700})
    page.click("text=Share")
    page.wait_for_selector(DIALOG)
    page.context.set_offline(True)
    page.click("text=Make a link")
    page.wait_for_selector(f"{DIALOG} [role=alert]:has-text('The service does not answer.')")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.context.set_offline(False)
    page.context.close()
