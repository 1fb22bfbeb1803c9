"""Keys without any wait between them in Chromium: each has its effect, however slowly the service answers."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cloud.console.review.reading import PAGE_SIZE
from cloud.store.labels import Label
from tests.cloud.console.browsing import wait_for, wait_until
from tests.cloud.console.review.conftest import Inbox
from tests.cloud.store.review.judged import Judged

KEYS = {"r": Label.REAL, "f": Label.FALSE_ALARM, "u": Label.UNSURE}
SLOW_S = 0.4


@contextmanager
def slow(page: Any, path: str) -> Iterator[None]:
    """Let the service answer slowly at a path."""

    def later(route: Any) -> None:
        page.wait_for_timeout(1000 * SLOW_S)
        route.continue_()

    page.route(path, later)
    yield
    page.unroute_all(behavior="wait")


def decisions(inbox: Inbox, device_id: str, count: int) -> list[Label | None]:
    """Decisions on the oldest `count` items, the newest first."""
    return [item.decision for item in inbox.items(device_id)][-count:]


@pytest.mark.parametrize("is_open", [False, True], ids=["list", "panel"])
def test_each_of_many_quick_decisions_is_stored_while_new_items_arrive(
    inbox: Inbox, operator: Any, is_open: bool
) -> None:
    device_id, count = f"quick-{is_open}", PAGE_SIZE + 14
    inbox.fill(device_id, count)
    page = operator().open(f"/?device={device_id}")
    page.keyboard.press("j")
    if is_open:
        page.keyboard.press("Enter")
    pressed = list(itertools.islice(itertools.cycle("rfu"), count))
    ended = threading.Event()

    def arrive() -> None:
        for place in range(40):
            inbox.add(Judged(100_000 + 100 * place, device_id=device_id, p_value=1e-6))
            if ended.wait(0.1):
                return

    arriving = threading.Thread(target=arrive)
    arriving.start()
    try:
        for key in pressed:
            page.keyboard.press(key)
    finally:
        ended.set()
        arriving.join(60)
    wanted = [KEYS[key] for key in pressed]
    wait_until(
        page,
        lambda: decisions(inbox, device_id, count) == wanted,
        "a key had no effect, or on another item than the chosen one",
    )


def test_keys_wait_for_the_next_rows(inbox: Inbox, operator: Any) -> None:
    inbox.fill("end", PAGE_SIZE + 3)
    page = operator().open("/?device=end")
    page.keyboard.press("j")
    page.locator(".r-row").nth(PAGE_SIZE - 2).locator(".r-open").focus()
    pressed = "rfurf"
    wanted = [*[None] * (PAGE_SIZE - 2), *(KEYS[key] for key in pressed)]
    with slow(page, "**/parts/review?**after=**"):
        for key in pressed:
            page.keyboard.press(key)
        wait_until(page, lambda: decisions(inbox, "end", PAGE_SIZE + 3) == wanted, "keys were lost at a page's end")


def test_a_note_written_before_its_field_is_shown_is_no_command(inbox: Inbox, operator: Any) -> None:
    inbox.fill("noted-quickly", 3)
    page = operator().open("/?device=noted-quickly")
    page.keyboard.press("j")
    with slow(page, "**/parts/review/item/*"):
        for key in ["n", *"rough", "Space", *"fib", "Backspace", "n", "Enter", "f"]:
            page.keyboard.press(key)
        wait_until(page, lambda: inbox.items("noted-quickly")[0].decision is Label.FALSE_ALARM, "the decision is lost")
    assert inbox.items("noted-quickly")[0].note == "rough fin"
    assert [item.decision for item in inbox.items("noted-quickly")][1:] == [None, None]


def test_a_note_belongs_to_the_item_that_was_chosen_last(inbox: Inbox, operator: Any) -> None:
    inbox.fill("moved-on", 3)
    page = operator().open("/?device=moved-on")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector(".r-panel")
    page.keyboard.press("j")
    with slow(page, "**/parts/review/item/*"):
        for key in ["j", "n", *"dent", "Enter", "r"]:
            page.keyboard.press(key)
        wait_until(page, lambda: inbox.items("moved-on")[2].note == "dent", "the note is not on the third item")
    assert [item.note for item in inbox.items("moved-on")][:2] == ["", ""]


def test_keys_that_waited_too_long_are_refused_in_words(inbox: Inbox, operator: Any) -> None:
    inbox.fill("hung", PAGE_SIZE + 2)
    page = operator().open("/?device=hung")
    page.locator(".r-row").nth(PAGE_SIZE - 1).locator(".r-open").focus()
    held: list[Any] = []
    page.route("**/parts/review?**after=**", lambda route: held.append(route))
    for key in "rff":
        page.keyboard.press(key)
    page.wait_for_selector(".r-toast:has-text('has not answered yet: 2 keys were not used')", timeout=30_000)
    wanted = [*[None] * (PAGE_SIZE - 1), Label.REAL, None, None]
    wait_until(page, lambda: decisions(inbox, "hung", PAGE_SIZE + 2) == wanted, "a refused key had an effect")
    for route in held:
        route.continue_()
    wait_until(page, lambda: page.locator(".r-row").count() == PAGE_SIZE + 2, "the next rows are not shown")


def test_a_decision_without_a_chosen_item_says_how_to_choose(inbox: Inbox, operator: Any) -> None:
    inbox.fill("none-chosen", 2)
    page = operator().open("/?device=none-chosen")
    for key in "rxe":
        page.evaluate("document.querySelector('.r-toast').hidden = true")
        page.keyboard.press(key)
        page.wait_for_selector(".r-toast:has-text('No item is chosen: j chooses the first one.')")
    assert decisions(inbox, "none-chosen", 2) == [None, None]


def test_the_focus_stays_where_it_was_when_the_list_is_replaced(inbox: Inbox, operator: Any) -> None:
    inbox.fill("focused", 3)
    page = operator().open("/?device=focused")
    page.locator(".r-tab").nth(1).focus()
    page.keyboard.press("Enter")
    wait_until(page, lambda: "tab=suspicious" in page.url, "the tab was not opened")
    wait_for(page, "document.activeElement.matches('.r-tab[aria-current]')")
    until_s = time.monotonic() + 1.5  # the counts of the tabs are written again after a change
    inbox.add(Judged(5000, device_id="focused", p_value=1e-6))
    page.wait_for_timeout(max(0.0, 1000 * (until_s - time.monotonic())))
    wait_for(page, "document.activeElement.matches('.r-tab[aria-current]')")


def test_the_help_of_the_page_opens_and_no_other_dialog(inbox: Inbox, operator: Any) -> None:
    inbox.fill("helped", 1)
    page = operator().open("/?device=helped")
    page.keyboard.press("?")
    page.wait_for_selector("#help[open] dt:has-text('Undecided')")
    assert page.locator("dialog[open]").count() == 1
    assert page.evaluate("document.querySelector('#help').scrollTop") == 0
    page.keyboard.press("Escape")
    page.wait_for_selector("#help", state="hidden")
