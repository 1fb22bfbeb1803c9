"""Models in Chromium, with a running service: a rollout that a gate halts, and one that a person rolls back."""

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from cloud.accounts.requests import SESSION_COOKIE
from cloud.user_roles import UserRole
from tests.accounts import sign_in
from tests.cloud.console.fleet.test_administrator import ServedService
from tests.cloud.console.models.rolled_out import NAMES, beat, begin_fleet, publish
from tests.cloud.console.test_usability import ALL_RULES, COLOURS

TRIAL = NAMES[:3]


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
    """Open a page as a person of a role; at the end no script may have failed."""
    contexts, problems = [], []

    def open_page(path: str, role: UserRole = UserRole.ADMIN, width: int = 1280, **options: Any) -> Any:
        facts = served.do(sign_in(served.cloud.service.store, role, f"{role}-ada"))
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
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


def check_axe(page: Any, rules: dict[str, Any]) -> None:
    found = Axe().run(page, options={"runOnly": rules}).response["violations"]
    assert [(item["id"], [node["html"] for node in item["nodes"]][:3]) for item in found] == []


def test_a_gate_halts_a_rollout_while_its_page_is_open(
    served: ServedService, bundle_ids: tuple[str, str], open_as: Any
) -> None:
    (old, new), store = bundle_ids, served.cloud.service.store
    page = open_as("/models/new-rollout?bundle=" + new)
    assert page.input_value("[name=bundle_id]") == new
    page.select_option("[data-trial]", "devices")
    page.fill("[data-trial-devices]", ", ".join(TRIAL))
    page.fill("[name=waves]", "100")
    page.fill("[name=stage_s]", "0")
    page.fill("[name=stage_samples]", "100000")
    page.fill("[name='limits.max_forwarded.slack']", "5")
    page.fill("[name=reason]", "<b>new</b> season")
    page.click("text=Start the rollout >> nth=-1")
    page.wait_for_url("**/models/rollouts/1")
    page.wait_for_selector("text=fetches it")  # the first check of the service
    served.do(beat(store, new, 20_000, 200, *TRIAL))
    page.wait_for_selector(".v-stage-track >> text=under way")
    page.wait_for_selector(f".v-device-chips a.t-good:has-text('{TRIAL[0]}')")
    served.do(beat(store, new, 20_150, 210, *TRIAL))
    page.wait_for_selector(".v-gates li:has-text('Forwarded samples'):has-text('450 samples')")
    gate = page.locator(".v-gates li", has_text="Forwarded samples")
    assert "at most 7.0" in gate.inner_text(), "twice 1 %, and 5 points"
    assert "more samples" in page.locator(".v-gates li", has_text="Samples of this stage").inner_text()
    check_axe(page, ALL_RULES)
    served.do(beat(store, new, 21_000, 1000, *TRIAL))  # nearly all are forwarded
    page.wait_for_selector(".v-halted")
    assert "of the samples were forwarded" in page.inner_text(".v-halted")
    assert page.locator("[data-opens=pause]").count() == 0
    assert "<b>new</b> season" in page.inner_text(".v-happened")

    async def wanted() -> str:
        found = await served.cloud.service.registry.current("shuttle")
        assert found is not None
        return found.bundle_id

    assert served.do(wanted()) == old


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


def test_pages_fit_a_phone_and_a_viewer_changes_nothing(bundle_ids: tuple[str, str], open_as: Any) -> None:
    for path, at in (
        ("/models", ".v-bundle-table"),
        (f"/bundle/{bundle_ids[1]}", ".v-board, .v-pairs"),
        ("/models/rollouts", ".v-rollouts"),
        ("/models/rollouts/1", ".v-gates"),
    ):
        page = open_as(path, UserRole.VIEWER, 390, color_scheme="dark")
        page.wait_for_selector(at)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert page.locator("[data-admin]:visible, [data-operator]:visible").count() == 0, path
        check_axe(page, COLOURS)
        page.emulate_media(color_scheme="light")
        check_axe(page, ALL_RULES)
    page = open_as("/models/new-rollout", UserRole.VIEWER)
    assert "Start the rollout" not in page.content()


def test_unknown_rollouts_and_bundles_have_a_page_that_says_so(open_as: Any) -> None:
    for path in ("/models/rollouts/99", "/models/rollouts/%3Cb%3E", "/bundle/%3Cscript%3Ealert(1)"):
        page = open_as(path)
        assert "not found" in page.inner_text("h1"), path
        assert page.locator("main script").count() == 0
