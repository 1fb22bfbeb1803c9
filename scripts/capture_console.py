"""Picture of a running console for the documents: python scripts/capture_console.py LINK docs/images/console.png.

Run it while `vedette demo` screens, which prints the link that signs in, once; or while the test's store is served
without sign-in (tests/cloud/console/filled_store.py), by its address. Needs Chromium and Playwright.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1280, 800
ALL_SHOWN = """[...document.querySelectorAll(".v-main img:not([hidden])")]
    .filter(image => image.getBoundingClientRect().top < innerHeight).every(image => image.naturalWidth > 0)"""
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def capture(link: str, modality: str) -> bytes:
    """Return the review page with the newest alarm of a modality opened, as PNG."""
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--headless", "--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(link)
        console = f"{link.partition('/link/')[0]}/"
        page.wait_for_url(console)
        page.goto(f"{console}?modality={modality}&state=all")
        page.click(".r-row .r-facts")
        page.wait_for_selector(".r-why .v-map")
        while not page.evaluate(ALL_SHOWN):  # wait_for_function needs 'unsafe-eval', which the console's policy refuses
            page.wait_for_timeout(100)
        page.wait_for_timeout(300)
        picture = page.screenshot()
        browser.close()
    return picture


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("link")
    parser.add_argument("output", type=Path)
    parser.add_argument("--modality", default="image")
    arguments = parser.parse_args()
    arguments.output.write_bytes(capture(arguments.link, arguments.modality))
