"""Time from the key of a decision to the next review item on the screen, in Chromium.

The keys follow each other without a pause: each one is pressed as soon as the item before it is shown. An item is shown
with the first frame that holds it and its verdict.
"""

import importlib.util
import shutil
from typing import Any

from cloud.accounts.requests import SESSION_COOKIE
from shared.errors import VedetteError

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
_LONGEST_MS = 30_000
_SHOWN = """() => document.querySelector(".r-panel:has(.r-why .v-facts)")?.dataset.item"""
_HAS_NEXT = """Boolean(document.querySelector(".r-row.r-chosen ~ .r-row, .r-more"))"""
_WATCH = f"""() => {{
    const shown = {_SHOWN};
    let pressed = null;
    window.nextItems = {{ times_ms: [], waiting: [] }};
    addEventListener("keydown", (event) => {{ pressed = {{ at: event.timeStamp, item: shown() }}; }}, true);
    const note = (at) => {{
        window.nextItems.times_ms.push(performance.now() - at);
        window.nextItems.waiting.splice(0).forEach((done) => done());
    }};
    const frame = () => {{
        requestAnimationFrame(frame);
        if (!pressed || !shown() || shown() === pressed.item) return;
        const {{ port1, port2 }} = new MessageChannel(); // its message comes after the paint of this frame
        port1.onmessage = note.bind(null, pressed.at);
        port2.postMessage(0);
        pressed = null;
    }};
    requestAnimationFrame(frame);
}}"""
_NEXT = f"""(count) => new Promise((done, fail) => {{
    setTimeout(() => fail(new Error("no next item within {_LONGEST_MS} ms")), {_LONGEST_MS});
    if (window.nextItems.times_ms.length > count) done();
    else window.nextItems.waiting.push(done);
}})"""


def chromium_path() -> str:
    """Return the path of Chromium, of its shell without windows if there is one: it starts faster; empty if missing."""
    return next(filter(None, map(shutil.which, _NAMES)), "")


def missing_browser() -> str:
    """Return why nothing can be measured in a browser here; empty if it can."""
    if not chromium_path():
        return "there is no Chromium here (apt-get install chromium)"
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed (pip install playwright)"
    return ""


def next_item_times(url: str, secret: str, decisions: int) -> list[float]:
    """Return the time of each decision in ms, from its key to the next item.

    Args:
        url: Address of the console.
        secret: Secret of a session of an operator.
        decisions: Number of items to decide, from the newest one on; fewer if there are fewer.

    Raises:
        VedetteError: The page did not show an item.
    """
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=list(_OPTIONS))
        try:
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            context.add_cookies([{"name": SESSION_COOKIE, "value": secret, "url": url}])
            page = context.new_page()
            page.goto(f"{url}/?tab=suspicious")
            return _decide(page, decisions)
        except Error as error:
            raise VedetteError(f"The review page failed in Chromium: {error.message}") from error
        finally:
            browser.close()


def _decide(page: Any, decisions: int) -> list[float]:
    page.wait_for_selector(".r-row")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector(".r-panel .r-why .v-facts")
    page.evaluate(_WATCH)
    for count in range(decisions):
        if not page.evaluate(_HAS_NEXT):
            break
        page.keyboard.press("f")
        page.evaluate(_NEXT, count)
    times_ms: list[float] = page.evaluate("window.nextItems.times_ms")
    return times_ms
