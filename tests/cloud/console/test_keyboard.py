"""The check of controls by keyboard finds each kind of defect."""

import time
from typing import Any

import pytest

from tests.cloud.console.conftest import RunningConsole
from tests.cloud.console.filled_store import SHUTTLE
from tests.cloud.console.keyboard import keyboard_problems

GOOD = "<a href='#a'>a</a><button>b</button><label>c<input></label><select><option>d</select><input type=date>"


@pytest.mark.parametrize(
    ("html", "named"),
    [
        (GOOD, ""),
        (f"{GOOD}<input type=radio name=e checked><input type=radio name=e>", ""),
        (f"{GOOD}<button hidden>b</button><button disabled>c</button>", ""),
        (f"{GOOD}<button tabindex=-1 id=x>b</button>", "not reached by Tab: <button tabindex"),
        (f"{GOOD}<a href='#x' tabindex=-1>x</a><p>", "not reached by Tab: <a href"),
        (f"{GOOD}<button id=x style='outline:none'>b</button>", "no outline: <button"),
        (f"{GOOD}<div style='position:fixed;inset:0;background:red'></div>", "covered: <a href"),
        (f"{GOOD}<a id=x href='#x' style='position:fixed;left:-999px'>x</a>", "outside of the window: <a id"),
        (
            f"{GOOD}<p onkeydown='event.preventDefault()'><a href=''>x</a></p><button>y</button>",
            "not reached by Tab: <button",
        ),
    ],
)
def test_a_control_out_of_reach_is_found(browser: Any, html: str, named: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.set_content(html)
    found = keyboard_problems(page)
    context.close()
    assert [text for text in found if text.startswith(named)] if named else not found, found


def test_the_focus_stays_on_a_row_while_the_list_of_devices_is_replaced(
    console: RunningConsole, open_page: Any
) -> None:
    page = open_page("/devices", at=".v-device-table tbody a")
    name = page.locator(".v-device-table tbody a").first.inner_text()
    page.locator(".v-device-table tbody a").first.focus()
    page.evaluate("document.activeElement.dataset.old = '1'")
    end_s = time.monotonic() + 30
    while page.locator("[data-old]").count():
        console.do(console.fleet.heartbeat(SHUTTLE, 5))
        page.wait_for_timeout(200)
        assert time.monotonic() < end_s, "the list was not replaced"
    assert page.evaluate("document.activeElement.textContent").strip() == name.strip()
