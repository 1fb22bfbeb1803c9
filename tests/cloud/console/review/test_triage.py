"""An operator's triage in Chromium: by keyboard, mouse and finger, together, and without the service."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from cloud.store.labels import Label
from cloud.store.sessions import end_sessions
from tests.cloud.console.browsing import wait_for, wait_until
from tests.cloud.console.filled_store import XSS
from tests.cloud.console.review.conftest import Inbox
from tests.cloud.console.test_usability import ALL_RULES, COLOURS
from tests.cloud.store.review.judged import Judged

ROWS = "rows => rows.map(row => row.dataset.item)"
TAB_LEFT = ".r-tab[aria-current] b"


def decisions(inbox: Inbox, device_id: str) -> list[Label | None]:
    return [item.decision for item in inbox.items(device_id)]


def test_a_range_is_decided_at_once_and_undone(inbox: Inbox, operator: Any) -> None:
    inbox.fill("bulk", 6)
    page = operator().open("/?device=bulk")
    page.keyboard.press("j")
    page.keyboard.press("Shift+J")
    page.keyboard.press("Shift+J")
    assert page.inner_text(".r-selected") == "3 selected"
    page.click(".r-bulk [data-decide=false_alarm]")
    wanted = [Label.FALSE_ALARM] * 3 + [None] * 3
    wait_until(page, lambda: decisions(inbox, "bulk") == wanted, "the range was not decided")
    assert page.locator(".r-row.r-done").count() == 3
    page.keyboard.press("z")
    wait_until(page, lambda: decisions(inbox, "bulk") == [None] * 6, "the range was not undone")
    wait_until(page, lambda: page.locator(".r-row.r-done").count() == 0, "the rows still look decided")
    page.keyboard.press("a")
    page.keyboard.press("e")
    wait_until(page, lambda: page.inner_text(TAB_LEFT) == "0", "not all are reviewed")
    assert decisions(inbox, "bulk") == [None] * 6


def test_a_note_goes_with_the_decision(inbox: Inbox, operator: Any) -> None:
    inbox.fill("noted", 2)
    page = operator().open("/?device=noted")
    page.keyboard.press("j")
    page.keyboard.press("n")
    wait_for(page, "document.activeElement.matches('.r-note')")
    page.keyboard.type(XSS)
    page.keyboard.press("Enter")
    page.keyboard.press("r")
    wait_until(page, lambda: inbox.items("noted")[0].note == XSS, "the note did not arrive")
    page.keyboard.press("k")
    wait_until(page, lambda: XSS in page.inner_text(".r-panel"), "the note is not shown as it was written")
    assert page.evaluate("window.pwned") is None


def test_the_decision_of_another_operator_is_shown_and_the_later_one_is_asked(inbox: Inbox, operator: Any) -> None:
    inbox.fill("shared", 3)
    ada, ben = operator("ada"), operator("ben")
    page, other = ada.open("/?device=shared"), ben.open("/?device=shared")
    page.keyboard.press("j")
    page.keyboard.press("r")
    other.wait_for_selector(".r-row.r-done:has-text('ada') .k-real")
    other.route("**/parts/review/changes**", lambda route: route.abort())  # its rows are old from now on
    page.keyboard.press("f")
    wait_until(page, lambda: decisions(inbox, "shared")[:2] == [Label.REAL, Label.FALSE_ALARM], "not stored")
    other.locator(".r-row").nth(1).locator(".r-open").focus()
    other.keyboard.press("u")
    other.wait_for_selector(".r-conflict[open] li:has-text('ada decided false alarm')")
    assert decisions(inbox, "shared")[1] is Label.FALSE_ALARM
    other.click(".r-conflict button[value=replace]")
    wait_until(other, lambda: decisions(inbox, "shared")[1] is Label.UNSURE, "Ben's decision was not stored")
    page.wait_for_selector(".r-row:has-text('ben') .k-unsure")
    page.keyboard.press("z")  # of a decision that is not the newest any more
    page.wait_for_selector(".r-conflict[open] li:has-text('ben decided unsure')")
    page.click(".r-conflict button[value=keep]")
    assert decisions(inbox, "shared")[1] is Label.UNSURE


def test_decisions_wait_in_the_page_while_the_connection_is_lost(inbox: Inbox, operator: Any) -> None:
    inbox.fill("offline", 3)
    ada = operator()
    page = ada.open("/?device=offline")
    page.keyboard.press("j")
    ada.context.set_offline(True)
    page.keyboard.press("r")
    page.keyboard.press("f")
    page.wait_for_selector("[role=alert]:has-text('2 decisions wait here and are sent again')")
    assert page.locator(".r-row.r-waiting").count() == 2
    assert decisions(inbox, "offline") == [None, None, None]
    page.close()
    ada.context.set_offline(False)
    again = ada.open("/?device=offline&state=all")
    wanted = [Label.REAL, Label.FALSE_ALARM, None]
    wait_until(again, lambda: decisions(inbox, "offline") == wanted, "the browser did not keep the decisions")
    wait_for(again, "document.querySelector('.v-problem').hidden")


def test_a_session_that_ends_in_the_middle_loses_no_decision(inbox: Inbox, operator: Any) -> None:
    inbox.fill("ended", 2)
    eve = operator("eve")
    page = eve.open("/?device=ended")
    page.keyboard.press("j")
    inbox.do(end_sessions(inbox.store, "eve", actor="test"))
    page.keyboard.press("r")
    page.wait_for_selector("[role=alert]:has-text('session has ended')")
    page.goto(inbox.url)
    assert "/sign-in" in page.url
    eve.sign_in()
    page.goto(inbox.url)
    wait_until(page, lambda: decisions(inbox, "ended") == [Label.REAL, None], "the decision was lost")


def test_new_items_are_counted_and_nothing_moves_under_the_cursor(inbox: Inbox, operator: Any) -> None:
    inbox.fill("live", 3)
    page = operator().open("/?device=live")
    page.keyboard.press("j")
    shown = page.eval_on_selector_all(".r-row", ROWS)
    inbox.add(Judged(5000, device_id="live", p_value=1e-6))
    page.wait_for_selector(".r-new:has-text('1 new')")
    assert page.eval_on_selector_all(".r-row", ROWS) == shown
    assert page.inner_text(TAB_LEFT) == "4"
    page.keyboard.press("g")
    wait_until(page, lambda: page.locator(".r-row").count() == 4, "the new item is not listed")
    inbox.add(Judged(5020, device_id="live", p_value=1e-6))  # it joins the newest item
    page.wait_for_selector(".r-row:has-text('2 rows over')")


def test_filters_tabs_days_and_views_stand_in_the_address(inbox: Inbox, operator: Any) -> None:
    inbox.fill("filters", 4)
    inbox.add(Judged(900, device_id="filters", source_id="boiler 100%"))
    page = operator("fil").open("/?device=filters")
    page.keyboard.press("2")
    page.wait_for_selector(".r-row:has-text('boiler 100%')")
    assert "tab=suspicious" in page.url
    page.fill("input[type=search]", "100%")
    wait_until(page, lambda: "text=100%25" in page.url, "the text is not in the address")
    page.select_option("select[name=odds]", "100000")
    page.wait_for_selector("text=Nothing to review here")
    page.go_back()
    page.wait_for_selector(".r-row:has-text('boiler 100%')")
    page.fill(".r-save-view input", "Boiler <b>")
    page.click(".r-save-view button")
    page.wait_for_selector(".r-views a:has-text('Boiler <b>')")
    page.goto(inbox.url)
    page.click(".r-views a:has-text('Boiler <b>')")
    page.wait_for_selector(".r-row:has-text('boiler 100%')")
    assert page.locator(".r-row").count() == 1
    page.click("button.r-clear")
    wait_until(page, lambda: "text" not in page.url, "the filters are not cleared")
    page.goto(inbox.url + "?device=filters")
    page.click(".r-days button[data-items] >> nth=-1")
    wait_until(page, lambda: "since=" in page.url and "until=" in page.url, "the day is not in the address")
    day = page.url
    page.click(".r-day svg", position={"x": 1, "y": 10})
    wait_until(page, lambda: page.url != day, "an hour is no filter")
    page.click(".r-remove-view")
    page.wait_for_selector(".r-views a", state="detached")


def swipe(page: Any, place: int, by: int) -> None:
    """Move a finger over a row, in pixels to the right."""
    box = page.locator(".r-row").nth(place).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 9):
        point = {"x": x + by * step / 8, "y": y}
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_a_finger_decides_by_a_swipe(inbox: Inbox, operator: Any) -> None:
    inbox.fill("phone", 3)
    page = operator(viewport={"width": 390, "height": 800}, has_touch=True).open("/?device=phone", width=390)
    swipe(page, 0, 170)
    swipe(page, 1, -170)
    swipe(page, 2, 40)  # too short
    wanted = [Label.REAL, Label.FALSE_ALARM, None]
    wait_until(page, lambda: decisions(inbox, "phone") == wanted, "the swipes were not stored")
    page.locator(".r-row .r-facts").nth(2).click()
    page.wait_for_selector(".r-panel .r-decide")
    page.tap(".r-panel [data-decide=unsure]")
    wait_until(page, lambda: decisions(inbox, "phone")[2] is Label.UNSURE, "the button did not decide")


def test_a_page_that_could_not_be_read_appears_by_itself_later(inbox: Inbox, operator: Any) -> None:
    inbox.fill("failing", 1)
    rename = "ALTER TABLE {} RENAME TO {}"
    inbox.do(execute(inbox, rename.format("heartbeats", "elsewhere")))
    try:
        page = operator().open("/?device=failing", at=".v-problem:not([hidden])")
        assert "vedette cloud migrate" in page.inner_text("[role=alert]")
    finally:
        inbox.do(execute(inbox, rename.format("elsewhere", "heartbeats")))
    page.wait_for_selector(".r-row")


async def execute(inbox: Inbox, statement: str) -> None:
    async with inbox.store.writing() as connection:
        await connection.exec_driver_sql(statement)


@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_screen(
    inbox: Inbox, operator: Any, width: int
) -> None:
    inbox.fill(f"axe-{width}", 3, source_id=XSS, origin=XSS)
    ada = operator(viewport={"width": width, "height": 800})
    found = []
    for dark in (False, True):
        page = ada.open(f"/?device=axe-{width}", width=width, dark=dark)
        for opened in (False, True):
            if opened:
                page.locator(".r-row .r-facts").first.click()
                page.wait_for_selector(".r-why .v-facts")
            options = {"runOnly": COLOURS if dark else ALL_RULES, "resultTypes": ["violations"]}
            results = Axe().run(page, options=options).response["violations"]
            found += [
                (opened, dark, rule["id"], rule["nodes"][0]["html"][:200])
                for rule in results
                if rule["impact"] in ("serious", "critical") or rule["id"] in ("page-has-heading-one", "region")
            ]
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("window.pwned") is None
        assert page.locator("h1").count() == 1
        page.close()
    assert found == []
