"""The console as an operator uses it, in Chromium."""

from typing import Any

import pytest

from tests.cloud.console.browsing import CHOSEN, ROW, samples, wait_for, wait_until
from tests.cloud.console.conftest import RunningConsole
from tests.cloud.console.filled_store import ARTERY, CAMERA, SHUTTLE, XSS, Fleet


def test_new_verdicts_arrive_without_moving_the_shown_ones(console: RunningConsole, open_page: Any) -> None:
    page = open_page()
    columns = page.eval_on_selector_all("th", "cells => cells.map(cell => cell.getBoundingClientRect().left)")
    heights = "rows => [...new Set(rows.map(row => row.getBoundingClientRect().height))]"
    assert len(page.eval_on_selector_all(ROW, heights)) == 1
    new = str(console.do(console.fleet.send(CAMERA, odd=True)).sample_id)
    wait_until(page, lambda: samples(page)[0] == new, "the new verdict did not appear")
    assert page.eval_on_selector_all("th", "cells => cells.map(cell => cell.getBoundingClientRect().left)") == columns
    assert len(page.eval_on_selector_all(ROW, heights)) == 1
    assert len(samples(page)) == 50


def test_the_list_holds_still_while_a_row_is_chosen(console: RunningConsole, open_page: Any) -> None:
    page = open_page()
    before = samples(page)
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.get_attribute(CHOSEN, "data-sample") == before[1]
    place = page.locator(CHOSEN).bounding_box()
    page.wait_for_timeout(200)
    new = str(console.do(console.fleet.send(ARTERY, odd=False)).sample_id)
    page.wait_for_selector("text=1 new")
    assert samples(page) == before
    assert page.locator(CHOSEN).bounding_box() == place
    page.keyboard.press("Escape")
    wait_until(page, lambda: samples(page)[0] == new, "the verdict that was held back did not appear")


def test_keyboard_leads_through_the_details(console: RunningConsole, open_page: Any) -> None:
    page = open_page("/verdicts?decision=anomalous")
    listed = samples(page)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"dd:text('{listed[0]}')")
    page.keyboard.press("j")
    page.wait_for_selector(f"dd:text('{listed[1]}')")
    page.keyboard.press("k")
    page.wait_for_selector(f"dd:text('{listed[0]}')")
    page.keyboard.press("Escape")
    page.wait_for_selector(".v-detail", state="detached")
    assert page.get_attribute(CHOSEN, "data-sample") == listed[0]


def test_each_kind_of_sample_highlights_its_anomaly(console: RunningConsole, open_page: Any) -> None:
    page = open_page("/verdicts?decision=anomalous&modality=image")
    page.click(ROW)
    wait_for(page, "document.querySelector('.v-map')?.naturalWidth > 0")
    wait_for(page, "document.querySelector('.v-canvas img')?.naturalWidth > 0")  # the other picture
    assert page.evaluate("document.querySelector('.v-canvas img').naturalWidth") == 224
    page.locator("input[type=range]").fill("20")
    assert page.evaluate("getComputedStyle(document.querySelector('.v-map')).opacity") == "0.2"
    page.click("button:text('Edge')")
    wait_for(page, "document.querySelector('.v-map').src.endsWith('/edge_map.png')")
    page.locator(".v-list").press("h")
    assert page.evaluate("getComputedStyle(document.querySelector('.v-map')).opacity") == "0"
    page.select_option("label:has-text('Modality') select", "video")
    wait_until(page, lambda: "door-2" in page.inner_text(".v-table"), "the filter did not change the list")
    page.click(ROW)
    wait_for(page, "document.querySelectorAll('.v-frames figure').length === 4")
    wait_for(page, "[...document.querySelectorAll('.v-frames img')].every(image => image.naturalWidth > 0)")
    assert page.locator(".v-frames .v-map").count() == 1
    assert "38\N{NO-BREAK SPACE}%" in page.inner_text(".v-frames")
    assert page.inner_text(".v-frames .v-highest").startswith("Frame 4 highest")
    page.select_option("label:has-text('Modality') select", "series")
    wait_until(page, lambda: "artery" in page.inner_text(".v-table"), "the filter did not change the list")
    page.click(ROW)
    page.wait_for_selector(".v-plot .v-span")
    assert page.locator(".v-plot .v-line").count() == 2
    page.select_option("label:has-text('Modality') select", "tabular")
    wait_until(page, lambda: "shuttle" in page.inner_text(".v-table"), "the filter did not change the list")
    page.click(ROW)
    page.wait_for_selector(".v-features")
    assert page.locator(".v-features tbody tr").count() == 9
    assert page.locator(".v-opinions tbody tr").count() == 6


def test_filters_stand_in_the_address_and_can_be_cleared(console: RunningConsole, open_page: Any) -> None:
    page = open_page()
    page.select_option("label:has-text('Device') select", "camera-north")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("FRAME_")
    wait_until(page, lambda: "text=FRAME_" in page.url, "the text did not reach the address")
    assert "device=camera-north" in page.url
    wait_until(page, lambda: "shuttle" not in page.inner_text(".v-table"), "the list was not filtered")
    page.reload()
    page.wait_for_selector(ROW)
    assert page.input_value("input[type=search]") == "FRAME_"
    assert "shuttle" not in page.inner_text(".v-table")
    page.fill("input[type=search]", "no such thing")
    page.wait_for_selector("text=No verdict matches these filters")
    page.click("button:text('Clear')")
    wait_until(page, lambda: len(samples(page)) == 50, "clearing did not bring all back")


def test_pages_lead_back_and_forth(console: RunningConsole, open_page: Any) -> None:
    page = open_page()
    newest = samples(page)
    page.click(".v-foot a:text('Older')")
    page.wait_for_selector("text=an earlier page")
    older = samples(page)
    assert older
    assert not set(older) & set(newest)
    page.click(".v-foot a:text('Newer')")
    wait_until(page, lambda: samples(page) == newest, "back at the top")
    page.wait_for_selector("text=newest, live")


def test_the_strip_shows_forwarded_and_audited_samples_as_sent(console: RunningConsole, open_page: Any) -> None:
    page = open_page(at=".v-figure-note:has-text('%')")
    assert "3.5 %" in page.inner_text(".v-figure:has-text('Sent')").replace("\u00a0", " ")  # 1 in 40 and 1 in 100


def test_text_from_devices_stays_text(console: RunningConsole, open_page: Any) -> None:
    verdict = console.do(console.fleet.send(CAMERA, origin=XSS, odd=True))
    console.do(console.fleet.heartbeat(ARTERY, 123_000, XSS))
    page = open_page()
    wait_until(page, lambda: XSS in page.inner_text(".v-table"), "the origin is not shown as it came")
    page.click(f"tr[data-sample='{verdict.sample_id}']")
    page.wait_for_selector(".v-facts")
    assert XSS in page.inner_text(".v-facts")
    devices = open_page("/devices", at=".v-device-table")
    assert XSS in devices.text_content(f"tr:has-text('{ARTERY.device_id}') small")
    device = open_page(f"/device/{ARTERY.device_id}", at=".v-warnings")
    assert XSS in device.inner_text(".v-warnings")
    alone = open_page(f"/verdict/{verdict.sample_id}", at=".v-facts")
    filtered = open_page(
        "/verdicts?device=" + "%3Cscript%3Ewindow.pwned%3D1%3C%2Fscript%3E&text=%22%3E%3Cimg", at=".v-empty"
    )
    for opened in (page, devices, device, alone, filtered):
        assert opened.evaluate("window.pwned") is None


def test_a_verdict_has_a_page_of_its_own(console: RunningConsole, open_page: Any) -> None:
    sample = console.do(console.fleet.leave_waiting(SHUTTLE))
    page = open_page(f"/verdict/{sample.sample_id}", at="text=There is no verdict on this sample yet")
    console.do(judge_waiting(console.fleet))
    page.wait_for_selector(".v-features")
    unknown = open_page("/verdict/nonsense", at="text=not a sample id")
    assert unknown.evaluate("fetch('/verdict/nonsense').then(answer => answer.status)") == 404


async def judge_waiting(fleet: Fleet) -> None:
    for waiting in await fleet.waiting():
        await fleet.judge(waiting)


def test_a_store_that_fails_is_shown_until_it_works_again(console: RunningConsole, open_page: Any) -> None:
    page = open_page()
    rename = "ALTER TABLE {} RENAME TO {}"
    console.do(execute(console, rename.format("verdicts", "elsewhere")))
    try:
        page.wait_for_selector("[role=alert]")
        assert "vedette cloud migrate" in page.inner_text("[role=alert]")
        assert samples(page), "earlier rows are still there"
    finally:
        console.do(execute(console, rename.format("elsewhere", "verdicts")))
    page.wait_for_selector("[role=alert]", state="detached")


async def execute(console: RunningConsole, statement: str) -> None:
    async with console.store.writing() as connection:
        await connection.exec_driver_sql(statement)


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_screen(console: RunningConsole, open_page: Any, width: int) -> None:
    pages = {"/devices": ".v-device-table", "/device/shuttle-a": ".v-plots"}
    pages |= {"/verdicts": ROW, "/verdicts?modality=series": ROW, "/verdicts?modality=video": ROW}
    for path, at in pages.items():
        page = open_page(path, width=width, at=at)
        if "series" in path:
            page.click(ROW)
            page.wait_for_selector(".v-plot")
        if "video" in path:
            page.click(ROW)
            page.wait_for_selector(".v-frames")
        overflow = """[...document.querySelectorAll('.v-main, .v-scroll, .v-detail-body, .v-fleet, .v-bar')]
            .filter(part => part.scrollWidth > part.clientWidth + 1).map(part => part.className)"""
        assert page.evaluate(overflow) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_theme_is_remembered(console: RunningConsole, open_page: Any) -> None:
    page = open_page("/devices", at=".v-device-table", dark=True)
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "dark"
    page.click(".v-theme")
    assert page.evaluate(theme) == "light"
    page.reload()
    page.wait_for_selector(".v-device-table")
    assert page.evaluate(theme) == "light"
