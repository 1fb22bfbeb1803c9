"""The console and its API behind sign-in, with devices whose samples ask for a person."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cloud.accounts.requests import SESSION_COOKIE
from cloud.console import create_app
from cloud.store.registry import Registry
from cloud.store.review.builder import build_items
from cloud.store.review.item_filter import ItemFilter, ItemState
from cloud.store.review.items import ItemOrder, StoredItem, item_page
from cloud.user_roles import UserRole
from shared.samples import Route
from tests.accounts import Browser, sign_in
from tests.cloud.accounts.test_in_browser import ServedAccounts
from tests.cloud.console.browsing import Tabs
from tests.cloud.console.filled_store import KEY, add_devices
from tests.cloud.store.review.judged import START_S, Judged, judge


class Inbox(ServedAccounts):
    """A console with review items; each test has a device of its own."""

    def console(self) -> Any:
        return create_app(self.store, Registry(self.store, self.settings.store, KEY.public_key()))

    def fill(self, device_id: str, count: int, **facts: Any) -> None:
        """A new device with `count` alarms of one verdict each."""
        self.do(add_devices(self.store, device_id))
        alarms = [
            Judged(100 * place, **({"device_id": device_id, "route": Route.ALARM} | facts)) for place in range(count)
        ]
        self.add(*alarms)

    def add(self, *wanted: Judged) -> None:
        """More verdicts, judged now, and their items."""
        now = time.time() - START_S
        self.do(judge(self.store, *(replace(item, judged_at_s=now) for item in wanted)))
        self.do(build_items(self.store))

    def items(self, device_id: str) -> list[StoredItem]:
        """All items of a device, the newest first."""

        async def read() -> list[StoredItem]:
            wanted = ItemFilter(state=ItemState.ALL, device_id=device_id)
            async with self.store.reading() as connection:
                return list((await item_page(connection, wanted, ItemOrder.NEWEST, size=200)).items)

        found: list[StoredItem] = self.do(read())
        return found

    def sign_in(self, name: str, role: UserRole = UserRole.OPERATOR) -> Browser:
        """A new session of an account."""
        browser: Browser = self.do(sign_in(self.store, role, name))
        return browser


class Operator:
    """A browser of one account on the inbox."""

    def __init__(
        self, inbox: Inbox, browser: Any, name: str, role: UserRole = UserRole.OPERATOR, **context: Any
    ) -> None:
        self.inbox, self.name = inbox, name
        self.context = browser.new_context(**context)
        self.sign_in(role)
        self.tabs = Tabs(inbox.url.rstrip("/"), self.context)

    def sign_in(self, role: UserRole = UserRole.OPERATOR) -> None:
        """Start a new session in this browser."""
        secret = self.inbox.sign_in(self.name, role).secret
        self.context.add_cookies([{"name": SESSION_COOKIE, "value": secret, "url": self.inbox.url}])

    def open(self, path: str, **options: Any) -> Any:
        """Open a path, and wait for a row."""
        return self.tabs(path, **({"at": ".r-row"} | options))


@pytest.fixture(scope="module")
def inbox(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[Inbox]:
    served = Inbox(tmp_path_factory.mktemp("review"))
    yield served
    served.stop()


@pytest.fixture
def operator(inbox: Inbox, browser: Any) -> Iterator[Any]:
    """Make browsers of operators; at the end nothing may have failed in them."""
    made: list[Operator] = []

    def make(name: str = "ada", role: UserRole = UserRole.OPERATOR, **context: Any) -> Operator:
        made.append(Operator(inbox, browser, name, role, **context))
        return made[-1]

    yield make
    problems = [problem for each in made for problem in each.tabs.problems]
    for each in made:
        each.context.close()
    assert problems == []
