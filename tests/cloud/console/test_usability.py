"""The console by keyboard, by address and back, without its service, and as axe-core and a policy see it."""

from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe

from cloud.console.app import POLICY
from tests.cloud.console.browsing import CHOSEN, ROW, samples, wait_for, wait_until
from tests.cloud.console.conftest import RunningConsole
from tests.cloud.console.filled_store import CAMERA

FOCUS_ROW = "document.activeElement.closest('tr')?.dataset.sample"
IN_DETAIL = "Boolean(document.activeElement.closest('.v-detail'))"
IS_SEARCH = "document.activeElement.type === 'search'"
LIST_PLACE = "document.querySelector('.v-scroll').scrollTop"
ALL_RULES = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
COLOURS = {"type": "rule", "values": ["color-contrast"]}  # nothing else differs in the dark


def test_a_row_is_reached_by_tab_and_enter_and_esc_move_the_focus(open_page: Any) -> None:
    page = open_page()
    listed = samples(page)
    page.focus("input[type=search]")
    for _ in range(6):  # Clear is disabled; headings sort, then come the rows
        page.keyboard.press("Tab")
        if page.evaluate(FOCUS_ROW):
            break
    assert page.evaluate(FOCUS_ROW) == listed[0]
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUS_ROW) == listed[1]
    assert page.get_attribute(CHOSEN, "data-sample") == listed[1]
    page.keyboard.press("Enter")
    page.wait_for_selector(f"dd:text('{listed[1]}')")
    assert page.evaluate(IN_DETAIL)
    page.keyboard.press("Escape")
    page.wait_for_selector(".v-detail", state="detached")
    assert page.evaluate(FOCUS_ROW) == listed[1]
    page.keyboard.press("Escape")
    page.wait_for_selector(CHOSEN, state="detached")


def test_search_and_help_answer_while_a_select_has_the_focus(open_page: Any) -> None:
    page = open_page()
    select = page.locator("select[name=device]")
    select.focus()
    page.keyboard.press("/")
    assert page.evaluate(IS_SEARCH)
    select.focus()
    page.keyboard.press("?")
    page.wait_for_selector(".v-keys[open]")
    assert "search for an origin" in page.inner_text(".v-keys")
    page.keyboard.press("Escape")
    page.wait_for_selector(".v-keys", state="hidden")
    page.click(ROW)
    page.wait_for_selector(".v-facts")
    select.focus()
    page.keyboard.press("Escape")
    page.wait_for_selector(".v-detail", state="detached")


def test_page_down_scrolls_the_list_wherever_the_focus_is(open_page: Any) -> None:
    page = open_page()
    assert page.evaluate(LIST_PLACE) == 0
    page.keyboard.press("PageDown")
    wait_for(page, f"{LIST_PLACE} > 300")
    page.keyboard.press("PageUp")
    wait_for(page, f"{LIST_PLACE} === 0")
    page.keyboard.press("j")
    page.keyboard.press("PageDown")
    wait_for(page, f"{LIST_PLACE} > 300")


def test_at_twice_the_size_the_page_scrolls_and_nothing_is_cut_off(open_page: Any) -> None:
    for path, at in (("/verdicts", ROW), ("/devices", ".v-device-table"), ("/device/shuttle-a", ".v-plots")):
        page = open_page(path, at=at)
        page.set_viewport_size({"width": 640, "height": 400})
        assert page.evaluate("document.documentElement.scrollWidth") <= 640
        page.keyboard.press("PageDown")
        wait_for(page, "scrollY > 200")
        assert page.evaluate("document.documentElement.scrollHeight") > (600 if path == "/devices" else 1000)


def test_the_opened_row_is_in_the_address_and_back_closes_it(open_page: Any) -> None:
    page = open_page("/verdicts?decision=anomalous")
    first, second = samples(page)[:2]
    page.click(f"tr[data-sample='{first}']")
    page.wait_for_selector(f"dd:text('{first}')")
    assert f"open={first}" in page.url
    page.keyboard.press("j")
    page.wait_for_selector(f"dd:text('{second}')")
    assert f"open={second}" in page.url
    page.reload()
    page.wait_for_selector(f"dd:text('{second}')")
    assert page.get_attribute(CHOSEN, "data-sample") == second
    page.go_back()
    page.wait_for_selector(".v-detail", state="detached")
    assert "open=" not in page.url
    assert "decision=anomalous" in page.url
    assert samples(page)[0] == first
    page.go_forward()
    page.wait_for_selector(f"dd:text('{second}')")


def test_headings_sort(console: RunningConsole, open_page: Any) -> None:
    page = open_page()
    newest = samples(page)
    page.click("th.c-time a")
    wait_until(page, lambda: "sort=oldest" in page.url, "the order is in the address")
    api = httpx.get(f"{console.url}/api/verdicts", params={"size": "200"}).json()["verdicts"]
    oldest = [row["sample_id"] for row in api][::-1]
    assert samples(page) == oldest[:50]
    assert page.get_attribute("th.c-time", "aria-sort") == "ascending"
    page.click(".v-foot a:text('Newer')")
    wait_until(page, lambda: samples(page) == oldest[50:100], "the next page goes on")
    page.click(".v-foot a:text('Older')")
    wait_until(page, lambda: samples(page) == oldest[:50], "back at the beginning")
    page.click("th.c-time a")
    wait_until(page, lambda: samples(page)[0] == newest[0], "newest first again")
    page.click("th.c-fused a")
    rarity = {row["sample_id"]: row["fused"]["p_value"] for row in api}
    wait_until(page, lambda: samples(page) == sorted(newest, key=rarity.__getitem__), "the rarest come first")
    assert "of this page" in str(page.get_attribute("th.c-fused", "title"))


def test_the_opened_verdict_covers_no_column_that_matters(open_page: Any) -> None:
    page = open_page()
    page.click(ROW)
    page.wait_for_selector(".v-facts")
    edge = page.locator(".v-detail").bounding_box()["x"]
    for column in ("decision", "sample", "device", "edge", "fused", "route", "time"):
        box = page.locator(f"{ROW} >> nth=0 >> .c-{column}").bounding_box()
        assert box["width"] > 60, column
        assert box["x"] + box["width"] <= edge + 1, column
    phone = open_page(width=390)
    assert phone.locator(f"{ROW} >> nth=0 >> .v-route").is_visible()
    assert phone.locator(f"{ROW} >> nth=0 >> .c-origin").is_visible()


def test_without_the_service_a_page_says_so_and_is_current_again_by_itself(
    console: RunningConsole, open_page: Any
) -> None:
    page = open_page()
    dot = "getComputedStyle(document.querySelector('.v-pulse')).backgroundColor"
    green = page.evaluate(dot)
    page.context.set_offline(True)
    console.do(close_connections(console))
    try:
        page.wait_for_selector("text=Not up to date since", timeout=8_000)
        assert page.evaluate(dot) != green
        assert "does not answer" in page.inner_text(".v-said")
    finally:
        page.context.set_offline(False)
    page.wait_for_selector("text=as of")
    new = str(console.do(console.fleet.send(CAMERA)).sample_id)
    wait_until(page, lambda: samples(page)[0] == new, "what came meanwhile is listed")
    assert page.evaluate(dot) == green
    assert page.inner_text(".v-said") == "Up to date again."


async def close_connections(console: RunningConsole) -> None:
    for connection in list(console.server.server_state.connections):
        connection.transport.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious_on_opened_verdicts_and_unknown_pages(
    console: RunningConsole, open_page: Any, width: int
) -> None:
    newest = {
        name: httpx.get(f"{console.url}/api/verdicts?modality={name}&size=1").json()["verdicts"][0]["sample_id"]
        for name in ("image", "series", "tabular", "video")
    }
    pages = {f"/verdicts?modality={name}&open={sample_id}": ".v-facts" for name, sample_id in newest.items()}
    pages |= {
        "/verdicts?text=nothing": ".v-empty",
        "/device/nonsense": "h1",
        "/verdict/nonsense": "h1",
        "/nonsense": "h1",
    }
    found = []
    for path, at in pages.items():
        page = open_page(path, width=width, at=at)
        for scheme, rules in (("light", ALL_RULES), ("dark", COLOURS)):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # no colour on its way to another
            results = Axe().run(page, options={"runOnly": rules, "resultTypes": ["violations"]}).response
            found += [
                (path, scheme, rule["id"], rule["impact"], rule["nodes"][0]["html"][:200])
                for rule in results["violations"]
                if rule["impact"] in ("serious", "critical") or rule["id"] in ("page-has-heading-one", "region")
            ]
        assert page.evaluate("document.documentElement.lang") == "en"
        assert page.locator("h1").count() == 1
        page.close()
    assert found == []


def test_pages_obey_a_policy_without_unsafe_sources(console: RunningConsole) -> None:
    assert "unsafe" not in POLICY
    pages = ("/", "/verdicts", "/devices", "/device/shuttle-a", "/verdict/nonsense", "/bundle/nonsense", "/nonsense")
    for path in (*pages, "/api/fleet"):
        answer = httpx.get(console.url + path, headers={"accept": "text/html"})
        assert answer.headers["content-security-policy"] == POLICY, path
        assert " style=" not in answer.text, path
        assert "<script>" not in answer.text, path
        assert " onclick" not in answer.text, path


def test_scripts_and_styles_have_addresses_that_change_with_them(console: RunningConsole) -> None:
    text = httpx.get(f"{console.url}/verdicts").text
    address = text.split('src="')[2].split('"')[0]
    assert address.endswith("/list.js")
    answer = httpx.get(console.url + address)
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-type"].startswith("text/javascript")
    old = httpx.get(f"{console.url}/static/console/0123/list.js")
    assert old.headers["cache-control"] == "no-cache"
    assert httpx.get(f"{console.url}/static/console/0123/nothing.js").status_code == 404
