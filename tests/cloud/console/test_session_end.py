"""A page whose session ends says so, and shows nothing more."""

from pathlib import Path
from typing import Any

from cloud.accounts.requests import SESSION_COOKIE
from cloud.console import create_app
from cloud.store.registry import Registry
from cloud.store.sessions import end_sessions
from tests.accounts import sign_in
from tests.cloud.accounts.test_in_browser import ServedAccounts
from tests.cloud.console.browsing import wait_for
from tests.cloud.console.filled_store import KEY


class ServedConsole(ServedAccounts):
    """The console behind sign-in."""

    def console(self) -> Any:
        return create_app(self.store, Registry(self.store, self.settings.store, KEY.public_key()))


def test_a_page_whose_session_ends_asks_to_sign_in(tmp_path: Path, browser: Any) -> None:
    served = ServedConsole(tmp_path)
    context = browser.new_context()
    secret = served.do(sign_in(served.store)).secret
    context.add_cookies([{"name": SESSION_COOKIE, "value": secret, "url": served.url}])
    page = context.new_page()
    page.goto(served.url)
    wait_for(page, "document.documentElement.dataset.live === 'current'")
    served.do(end_sessions(served.store, "viewer", actor="test"))
    page.wait_for_selector("[role=alert]:has-text('Your session has ended')")
    page.reload()
    assert "/sign-in" in page.url
    context.close()
    served.stop()
