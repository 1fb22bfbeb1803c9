"""Models in Chromium, with a running service: a rollout that a person rolls back, a release, and unknown pages."""

from collections.abc import Iterator
from typing import Any

import pytest

from cloud.accounts.requests import SESSION_COOKIE
from cloud.user_roles import UserRole
from tests.accounts import sign_in
from tests.cloud.console.models.rolled_out import begin_fleet, publish
from tests.cloud.console.served_service import ServedService


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[ServedService]:
    service = ServedService(tmp_path_factory.mktemp("service"), rollouts={"check_every_s": 0.1}, heartbeat_s=60)
    yield service
    service.stop()


@pytest.fixture(scope="module")
def bundle_ids(served: ServedService) -> tuple[str, str]:
    service = served.cloud.service
    return served.do(begin_fleet(service.store, service.registry, served.key))


@pytest.fixture
def open_as(served: ServedService, browser: Any) -> Iterator[Any]:
    """Open a page as an administrator; at the end no script may have failed."""
    contexts, problems = [], []

    def open_page(path: str) -> Any:
        facts = served.do(sign_in(served.cloud.service.store, UserRole.ADMIN, "admin-ada"))
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 900}))
        contexts[-1].add_cookies([{"name": SESSION_COOKIE, "value": facts.secret, "url": served.url}])
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)  # a busy machine
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda text: problems.append(text.text) if "Content Security" in text.text else None)
        page.goto(served.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def test_a_person_pauses_and_rolls_back_by_keyboard_and_a_stale_page_says_so(
    served: ServedService, bundle_ids: tuple[str, str], open_as: Any
) -> None:
    third = served.do(publish(served.cloud.service.registry, served.key, 3))
    page = open_as(f"/models/new-rollout?bundle={third}")
    page.focus("[data-trial-share]")
    page.keyboard.press("Enter")  # submits with the defaults
    page.wait_for_url("**/models/rollouts/*")
    stale = open_as(page.url.removeprefix(served.url))
    stale.click("[data-opens=back]")
    page.focus("[data-opens=pause]")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.wait_for_selector("#pause[open]")
    page.fill("#pause [name=reason]", "lunch")
    page.keyboard.press("Enter")
    page.wait_for_selector(".v-phase:text-is('paused')")
    page.click("[data-opens=back]")
    page.click("#back button[type=submit]")
    page.wait_for_selector(".v-phase:text-is('taken back')")
    assert "admin-ada" in page.inner_text(".v-happened")
    stale.click("#back button[type=submit]")
    stale.wait_for_selector("#back .v-failed:not([hidden])")
    assert "No rollout of 'shuttle' is under way" in stale.inner_text("#back .v-failed")


def test_a_bundle_is_released_to_a_group_and_withdrawn(
    served: ServedService, bundle_ids: tuple[str, str], open_as: Any
) -> None:
    _, new = bundle_ids
    page = open_as(f"/bundle/{new}")
    page.click("[data-opens=release]")
    page.check("#release [data-group=default]")
    page.click("#release button[type=submit]")
    page.wait_for_selector(".v-title .v-phase:text-is('current')")
    assert "for default" in page.inner_text(".v-seen >> nth=0")
    page.click("[data-opens=withdraw]")
    page.click("#withdraw button[type=submit]")
    page.wait_for_selector(".v-title .v-phase:text-is('not current')")
    with page.expect_download() as download:
        page.click("text=Download")
    assert download.value.suggested_filename == f"{new}.vedette"


def test_unknown_rollouts_and_bundles_have_a_page_that_says_so(open_as: Any) -> None:
    for path in ("/models/rollouts/99", "/models/rollouts/%3Cb%3E", "/bundle/%3Cscript%3Ealert(1)"):
        page = open_as(path)
        assert "not found" in page.inner_text("h1"), path
        assert page.locator("main script").count() == 0
