"""Keys without any wait between them in Chromium: each has its effect, however slowly the service answers."""

import itertools
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import delete

from cloud.console.review.reading import PAGE_SIZE
from cloud.store.labels import Label
from cloud.store.schema import review_items
from shared.samples import Route
from tests.cloud.console.browsing import wait_for, wait_until
from tests.cloud.console.review.conftest import Inbox
from tests.cloud.store.review.judged import Judged

KEYS = {"r": Label.REAL, "f": Label.FALSE_ALARM, "u": Label.UNSURE}
SLOW_S = 0.4
LIST = re.compile(r"/parts/review\?")
UNUSED = ".r-toast:has-text('not used.')"
REFUSED = "An earlier key did not reach its item or list"


@contextmanager
def slow(page: Any, path: str) -> Iterator[None]:
    """Let the service answer slowly at a path."""

    def later(route: Any) -> None:
        page.wait_for_timeout(1000 * SLOW_S)
        route.continue_()

    page.route(path, later)
    yield
    page.unroute_all(behavior="wait")


def hold(page: Any, address: Any, method: str = "GET") -> list[Any]:
    """Hold requests at an address; return the list that gets them."""
    held: list[Any] = []
    page.route(address, lambda route: held.append(route) if route.request.method == method else route.continue_())
    return held


def release(page: Any, held: list[Any], *, status: int = 0) -> None:
    """Let the service answer the held requests, or fail them with a status; hold no further ones."""
    wait_until(page, lambda: bool(held), "nothing was asked of the service")
    for route in held:
        route.fulfill(status=status) if status else route.continue_()
    page.unroute_all()


def press(page: Any, keys: str) -> None:
    """Press keys one after the other; "+" stands for Enter."""
    for key in keys:
        page.keyboard.press({" ": "Space", "+": "Enter"}.get(key, key))


def refused(page: Any, count: int, reason: str = REFUSED) -> None:
    """Wait until the page says how many keys it has not used."""
    words = "1 key was" if count == 1 else f"{count} keys were"
    page.wait_for_selector(f".r-toast:has-text('{reason}: {words} not used.')")


def number(page: Any, place: int) -> str:
    """Return the number of the item in a row."""
    found: str = page.locator(".r-row").nth(place).get_attribute("data-item")
    return found


def choose(page: Any, place: int) -> None:
    """Open the item of a row with the pointer."""
    item = number(page, place)
    page.locator(".r-row .r-facts").nth(place).click()
    page.wait_for_selector(f".r-panel[data-item='{item}']")


def expire(inbox: Inbox, item: str) -> None:
    """Delete an item from the store."""

    async def remove() -> None:
        async with inbox.store.writing() as connection:
            await connection.execute(delete(review_items).where(review_items.c.number == int(item)))

    inbox.do(remove())


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
    wanted: list[Label | None] = [KEYS[key] for key in pressed]
    try:
        done = 0
        for _ in range(5):  # on a busy machine the page refuses keys that waited too long, and says so
            press(page, "".join(pressed[done:]))
            wait_until(
                page,
                lambda: decisions(inbox, device_id, count) == wanted or page.locator(UNUSED).count() > 0,
                "a key had no effect, or on another item than the chosen one",
            )
            done = settled(page, inbox, device_id, count)
            assert decisions(inbox, device_id, count) == wanted[:done] + [None] * (count - done)
            if done == count:
                break
    finally:
        ended.set()
        arriving.join(60)
    assert decisions(inbox, device_id, count) == wanted


def settled(page: Any, inbox: Inbox, device_id: str, count: int) -> int:
    """Wait until no decision is stored any more, and return how many items are decided."""
    while True:
        before = decisions(inbox, device_id, count)
        page.wait_for_timeout(1500)
        if decisions(inbox, device_id, count) == before:
            return count - before.count(None)


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
    assert page.locator(".r-chosen").get_attribute("data-item") == number(page, PAGE_SIZE - 1)


def test_a_note_is_dropped_whose_item_cannot_be_read(inbox: Inbox, operator: Any) -> None:
    inbox.fill("unread", 3)
    page = operator().open("/?device=unread")
    page.keyboard.press("j")
    held = hold(page, "**/parts/review/item/*")
    press(page, "nrough fine+")
    release(page, held, status=503)
    refused(page, 11)
    choose(page, 0)
    press(page, "n")
    page.wait_for_selector(".r-note:focus")
    press(page, "bent")
    page.keyboard.press("Escape")
    press(page, "f")
    wait_until(page, lambda: decisions(inbox, "unread", 3) == [Label.FALSE_ALARM, None, None], "keys were decisions")
    assert inbox.items("unread")[0].note == "bent"


def test_the_rest_of_a_dropped_note_is_no_command(inbox: Inbox, operator: Any) -> None:
    inbox.fill("rest", 3)
    page = operator().open("/?device=rest")
    page.keyboard.press("j")
    page.route("**/parts/review/item/*", lambda route: route.fulfill(status=503))
    page.clock.pause_at(time.time() + 1)  # no pause between two keys, however slow the machine is
    press(page, "nro")
    refused(page, 2)
    press(page, "ugh fine")
    refused(page, 10)
    page.unroute_all()
    page.clock.resume()
    choose(page, 1)
    press(page, "f")
    wait_until(page, lambda: decisions(inbox, "rest", 3) == [None, Label.FALSE_ALARM, None], "keys were decisions")


def test_a_note_does_not_land_on_the_item_before(inbox: Inbox, operator: Any) -> None:
    inbox.fill("before", 3)
    page = operator().open("/?device=before")
    second = f"**/parts/review/item/{number(page, 1)}"
    page.route(second, lambda route: route.fulfill(status=503))
    choose(page, 0)
    press(page, "r")
    page.wait_for_selector(".v-problem:has-text('This item could not be read')")
    wait_until(page, lambda: decisions(inbox, "before", 3) == [Label.REAL, None, None], "not decided")
    page.unroute_all()
    held = hold(page, second)
    press(page, "ndent+")
    release(page, held, status=503)
    refused(page, 5)
    assert page.input_value(".r-note") == ""
    choose(page, 2)
    press(page, "f")
    wanted = [Label.REAL, None, Label.FALSE_ALARM]
    wait_until(page, lambda: decisions(inbox, "before", 3) == wanted, "the note was a decision")
    assert inbox.items("before")[0].note == ""


def test_a_note_on_an_expired_item_is_dropped(inbox: Inbox, operator: Any) -> None:
    inbox.fill("expired", 3)
    page = operator().open("/?device=expired")
    first = number(page, 0)
    expire(inbox, first)
    page.keyboard.press("j")
    held = hold(page, "**/parts/review/item/*")
    press(page, "nrough fine")
    release(page, held)
    refused(page, 10)
    page.wait_for_selector(f".r-panel[data-item='{first}']:has-text('is not there')")
    choose(page, 2)
    press(page, "u")
    wait_until(page, lambda: decisions(inbox, "expired", 2) == [None, Label.UNSURE], "the note was decisions")


def test_keys_for_another_list_are_dropped_if_it_cannot_be_read(inbox: Inbox, operator: Any) -> None:
    inbox.fill("other-list", 3)
    page = operator().open("/?device=other-list")
    held = hold(page, LIST)
    press(page, "2jr")
    release(page, held, status=503)
    refused(page, 2)
    choose(page, 2)
    press(page, "f")
    wanted = [None, None, Label.FALSE_ALARM]
    wait_until(page, lambda: decisions(inbox, "other-list", 3) == wanted, "a key acted on the list before")


def test_a_new_class_decides_the_item_it_was_typed_for(inbox: Inbox, operator: Any) -> None:
    inbox.fill("late-class", 3)
    page = operator().open("/?device=late-class")
    choose(page, 0)
    page.keyboard.press("c")
    page.wait_for_selector(".r-class-name:focus")
    page.keyboard.type("burr")
    held = hold(page, "**/api/v1/defect-classes", "POST")
    page.keyboard.press("Enter")
    wait_until(page, lambda: bool(held), "the class was not sent")
    choose(page, 1)
    release(page, held)
    wait_until(page, lambda: inbox.items("late-class")[0].defect_class == "burr", "the first item has no class")
    page.wait_for_selector(f".r-panel[data-item='{number(page, 1)}']")
    press(page, "f")
    wanted = [Label.REAL, Label.FALSE_ALARM, None]
    wait_until(page, lambda: decisions(inbox, "late-class", 3) == wanted, "the class is on another item")


@pytest.mark.parametrize("key", ["j", "r"])
def test_late_rows_do_not_move_on_from_an_item_chosen_meanwhile(inbox: Inbox, operator: Any, key: str) -> None:
    device_id = f"late-rows-{key}"
    inbox.fill(device_id, PAGE_SIZE + 3)
    page = operator().open(f"/?device={device_id}")
    page.locator(".r-row").nth(PAGE_SIZE - 1).locator(".r-open").focus()
    page.wait_for_selector(f".r-chosen[data-item='{number(page, PAGE_SIZE - 1)}']")
    held = hold(page, LIST)
    press(page, f"{key}u")
    wait_until(page, lambda: bool(held), "no further rows were asked for")
    choose(page, 2)
    refused(page, 1, "The focus was moved meanwhile")
    release(page, held)
    wait_until(page, lambda: page.locator(".r-row").count() == PAGE_SIZE + 3, "the next rows are not shown")
    assert page.locator(".r-chosen").get_attribute("data-item") == number(page, 2)
    press(page, "f")
    wanted: list[Label | None] = [None] * (PAGE_SIZE + 3)
    wanted[2] = Label.FALSE_ALARM
    if key == "r":
        wanted[PAGE_SIZE - 1] = Label.REAL
    wait_until(page, lambda: decisions(inbox, device_id, PAGE_SIZE + 3) == wanted, "another item was decided")


@pytest.mark.parametrize("key", ["n", "r"])
def test_a_search_that_is_typed_while_a_key_waits_is_no_command(inbox: Inbox, operator: Any, key: str) -> None:
    device_id = f"searched-{key}"
    inbox.fill(device_id, PAGE_SIZE + 3)
    page = operator().open(f"/?device={device_id}")
    page.locator(".r-row").nth(PAGE_SIZE - 1).locator(".r-open").focus()
    held = hold(page, "**/parts/review/item/*" if key == "n" else LIST)
    press(page, key)
    wait_until(page, lambda: bool(held), "the key did not wait")
    page.locator("[type=search]").click()
    release(page, held)
    if key == "n":
        page.wait_for_selector(".r-panel .r-note")
    else:
        wait_until(page, lambda: page.locator(".r-row").count() == PAGE_SIZE + 3, "the next rows are not shown")
    press(page, "fur")
    wait_until(page, lambda: page.locator("[type=search]").input_value() == "fur", "the search lost the focus")
    wanted: list[Label | None] = [None] * (PAGE_SIZE + 3)
    if key == "r":
        wanted[PAGE_SIZE - 1] = Label.REAL
    wait_until(page, lambda: decisions(inbox, device_id, PAGE_SIZE + 3) == wanted, "the search was decisions")


def test_the_focus_stays_with_its_item_and_goes_when_that_is_gone(inbox: Inbox, operator: Any) -> None:
    inbox.fill("alike", 3)
    page = operator().open("/?device=alike")
    item = number(page, 1)
    page.locator(".r-check").nth(1).click()
    inbox.add(Judged(5000, device_id="alike", route=Route.ALARM))
    press(page, "g")
    wait_until(page, lambda: page.locator(".r-row").count() == 4, "the list was not read again")
    wait_for(page, f"document.activeElement.closest('.r-row')?.dataset.item === '{item}'")
    expire(inbox, item)
    press(page, "g")
    wait_until(page, lambda: page.locator(".r-row").count() == 3, "the expired item is still listed")
    assert page.locator(".r-chosen").count() == 0
    press(page, "r")
    page.wait_for_selector(".r-toast:has-text('No item is chosen')")
    assert decisions(inbox, "alike", 3) == [None, None, None]


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
