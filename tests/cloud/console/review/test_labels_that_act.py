"""Labels and their effects in Chromium: classes by key, mutes with preview and undo, reported misses."""

import time
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from cloud.store.labels import Label
from cloud.store.missed_reports import report_page
from cloud.store.review.item_filter import ItemFilter, ItemState
from cloud.store.review.items import ItemOrder, item_page
from cloud.user_roles import UserRole
from tests.cloud.console.browsing import wait_until
from tests.cloud.console.filled_store import XSS
from tests.cloud.console.review.conftest import Inbox
from tests.cloud.console.test_usability import ALL_RULES, COLOURS
from tests.cloud.store.review.judged import START_S, Judged

HOT = {"contributions": (("temperature", 0.9), ("speed", 0.1)), "bundle_id": "press-1-00000000"}
COLD = HOT | {"contributions": (("pressure", 1.0),)}


def hidden(inbox: Inbox, device_id: str) -> int:
    async def read() -> int:
        wanted = ItemFilter(state=ItemState.ALL, device_id=device_id, is_muted=True)
        async with inbox.store.reading() as connection:
            return len((await item_page(connection, wanted, ItemOrder.NEWEST)).items)

    count: int = inbox.do(read())
    return count


def test_a_class_is_named_once_and_chosen_with_one_key(inbox: Inbox, operator: Any) -> None:
    inbox.fill("classes", 4, **HOT)
    page = operator().open("/?device=classes")
    page.keyboard.press("j")
    page.keyboard.press("c")
    page.wait_for_selector(".r-class-name:focus")
    page.keyboard.type("deep scratch")
    page.keyboard.press("Enter")
    wait_until(page, lambda: inbox.items("classes")[0].defect_class == "deep scratch", "the class was not stored")
    page.wait_for_selector(".r-effects:has-text('labelled samples of bundle press'):has-text('deep scratch 1')")
    page.keyboard.press("Shift+Digit1")
    wait_until(page, lambda: inbox.items("classes")[1].defect_class == "deep scratch", "the key chose no class")
    page.keyboard.press("f")
    wait_until(page, lambda: inbox.items("classes")[2].decision is Label.FALSE_ALARM, "not decided")
    page.goto(f"{inbox.url}?device=classes&defect_class=deep+scratch")
    page.wait_for_selector(".r-row .k-real:has-text('deep scratch')")
    assert page.locator(".r-row").count() == 2
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector(".r-panel [data-class][aria-pressed=true]")


def test_a_pattern_is_muted_after_a_look_at_what_it_hides_and_the_mute_is_ended_with_undo(
    inbox: Inbox, operator: Any
) -> None:
    inbox.fill("muted", 4, **HOT)
    inbox.add(Judged(900, device_id="muted", p_value=1e-6, **COLD))
    page = operator().open("/?device=muted&sort=oldest")
    page.keyboard.press("j")
    page.keyboard.press("f")
    page.wait_for_selector(".r-effects:has-text('would have hidden 4 of last week')")
    page.keyboard.press("m")
    page.wait_for_selector(".r-mute-dialog[open] .r-mute-items li >> nth=3")
    assert "0 of them real" in page.inner_text(".r-mute-words")
    page.fill(".r-mute-dialog [name=note]", XSS)
    page.keyboard.press("Enter")
    page.wait_for_selector(".r-toast:has-text('3 items left the inbox')")
    wait_until(page, lambda: page.locator(".r-row").count() == 1, "the hidden items are still listed")
    inbox.add(Judged(2000, device_id="muted", p_value=0.004, **HOT))
    page.keyboard.press("5")
    page.wait_for_selector(".r-row .r-chip:has-text('muted') >> nth=3")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector(".r-muted-by:has-text('Hidden by the mute of lab on muted')")
    page.goto(f"{inbox.url}mutes")
    row = page.locator(".r-mutes > li", has_text="lab on muted")
    assert XSS in row.inner_text()
    row.locator("[data-change=end]").click()
    page.wait_for_selector(".r-said:has-text('4 items came back into the inbox')")
    assert hidden(inbox, "muted") == 0
    page.locator(".r-mutes > li", has_text="lab on muted").locator("[data-change=resume]").click()
    page.wait_for_selector(".r-said:has-text('4 items left the inbox')")
    assert hidden(inbox, "muted") == 4
    assert page.evaluate("window.pwned") is None


def test_hidden_reals_are_warned_of_and_asked(inbox: Inbox, operator: Any) -> None:
    inbox.fill("reals", 3, **HOT)
    page = operator().open("/?device=reals")
    page.keyboard.press("j")
    page.keyboard.press("r")
    page.keyboard.press("f")
    page.wait_for_selector(".r-effects [data-mute]")
    page.keyboard.press("m")
    page.wait_for_selector(".r-mute-dialog [role=alert]:has-text('1 of these was called real')")
    page.wait_for_selector(".r-mute-items .r-is-real")
    page.click(".r-mute-dialog [type=submit]")
    assert hidden(inbox, "reals") == 0  # the browser asks for the confirmation first
    page.check("[name=accepts_real]")
    page.click(".r-mute-dialog [type=submit]")
    wait_until(page, lambda: hidden(inbox, "reals") == 1, "the confirmed mute was not made")


def test_a_miss_is_reported_on_the_device_and_listed_apart(inbox: Inbox, operator: Any) -> None:
    inbox.fill("silent", 1)
    page = operator().open("/device/silent", at=".v-device-page")
    page.click("[data-report-miss]")
    page.fill("#miss-dialog [name=source_id]", XSS)
    page.fill("#miss-dialog [name=note]", "a cracked gear")
    page.click("#miss-dialog [type=submit]")
    page.wait_for_selector(".v-device-page:has-text('People have reported 1 miss')")

    async def read() -> Any:
        async with inbox.store.reading() as connection:
            return await report_page(connection, device_id="silent")

    (report,) = inbox.do(read())
    assert (report.source_id, report.note, report.author) == (" ".join(XSS.split()), "a cracked gear", "ada")
    assert abs(report.end_s - time.time()) < 120
    page.goto(f"{inbox.url}?tab=missed&device=silent")
    page.wait_for_selector(".r-reports li:has-text('a cracked gear')")
    page.click(".r-reports [data-withdraw]")
    page.wait_for_selector(".r-reported:has-text('None is reported')")
    sample_id = inbox.items("silent")[0].cover.sample_id
    page.goto(f"{inbox.url}verdict/{sample_id}")
    page.click("[data-report-miss]")
    page.fill("#miss-dialog [name=note]", "seen at the end of the line")
    page.click("#miss-dialog [type=submit]")
    page.wait_for_selector(".v-labels li:has-text('missed by the edge'):has-text('end of the line')")
    assert page.evaluate("window.pwned") is None


def test_a_viewer_looks_and_an_administrator_edits_the_classes(inbox: Inbox, operator: Any) -> None:
    inbox.fill("roles", 1, **HOT)
    viewer = operator("vic", UserRole.VIEWER).open("/mutes", at=".r-mute-list")
    assert viewer.locator("[data-change]").count() == 0
    viewer.goto(f"{inbox.url}?device=roles")
    assert viewer.locator(".r-mute-dialog, #miss-dialog").count() == 0
    admin = operator("root", UserRole.ADMIN).open("/defect-classes", at="[name=name]")
    admin.fill("form.v-form [name=name]", "dent")
    admin.click("form.v-form [type=submit]")
    admin.click("[aria-label='Rename dent']")
    admin.fill("#rename [name=name]", "large dent")
    admin.click("#rename [type=submit]")
    admin.click("[aria-label='Remove large dent']")
    admin.click("#remove [type=submit]")
    wait_until(admin, lambda: admin.locator("td:has-text('large dent')").count() == 0, "the class is still listed")


@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious_on_the_pages_of_labels(inbox: Inbox, operator: Any, width: int) -> None:
    name = f"labels-{width}"
    inbox.fill(name, 3, source_id=XSS, **HOT)
    inbox.add(Judged(time.time() - START_S, device_id=name, source_id=XSS, **HOT))
    root = operator("root", UserRole.ADMIN, viewport={"width": width, "height": 800})
    page = root.open(f"/?device={name}", width=width)
    page.keyboard.press("j")
    page.keyboard.press("f")
    page.wait_for_selector(".r-effects [data-mute]")
    page.keyboard.press("m")
    page.wait_for_selector(".r-mute-dialog[open] .r-mute-items li")
    found = serious(page, ALL_RULES, width)
    page.click(".r-mute-dialog [type=submit]")
    page.wait_for_selector(".r-toast:has-text('left the inbox')")
    for path, at in (
        ("/mutes", ".r-mutes li"),
        ("/?tab=missed", ".r-reported"),
    ):
        for dark in (False, True):
            shown = root.open(path, at=at, width=width, dark=dark)
            found += serious(shown, COLOURS if dark else ALL_RULES, width)
            shown.close()
    assert found == []


def serious(page: Any, rules: Any, width: int) -> list[tuple[str, str]]:
    options = {"runOnly": rules, "resultTypes": ["violations"]}
    results = Axe().run(page, options=options).response["violations"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width, page.url
    return [
        (page.url, rule["id"], rule["nodes"][0]["html"][:200])
        for rule in results
        if rule["impact"] in ("serious", "critical")
    ]
