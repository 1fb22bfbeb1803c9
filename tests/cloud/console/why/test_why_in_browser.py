"""The page of one verdict in Chromium: zoom, playback, comparison, readings under the pointer, links, axe."""

import time
import uuid
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from cloud.console.why import reading
from cloud.store.share_links import add_share
from tests.cloud.console.browsing import wait_for, wait_until
from tests.cloud.console.conftest import RunningConsole
from tests.cloud.console.filled_store import CAMERA, DOOR, add_devices
from tests.cloud.evidence import plant

SCALE = "document.querySelector('.v-canvas').dataset.scale"
SHOWN = "document.querySelector('.v-seek').value"
RULES = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
PAGE = ".v-why-main"


@pytest.fixture(scope="module")
def ids(console: RunningConsole) -> dict[str, str]:
    """Verdicts of each kind, by name."""

    async def fill() -> dict[str, str]:
        store, registry = console.store, console.fleet.registry
        await add_devices(store, plant.PLANT, plant.BANK)
        await plant.publish(registry, plant.plant_bundle(), plant.bank_bundle())
        windows = await plant.send_plant(store, time.time() - 5)
        rows = await plant.send_bank(store, time.time() - 5)
        await console.fleet.send(CAMERA, odd=False)
        image = (await console.fleet.send(CAMERA, odd=True)).sample_id
        clip = (await console.fleet.send(DOOR, odd=True)).sample_id
        return {"window": str(windows[15]), "row": str(rows[0]), "image": str(image), "clip": str(clip)}

    return console.do(fill())


def test_a_picture_is_zoomed_and_moved_by_keys_buttons_and_pointer(open_page: Any, ids: dict[str, str]) -> None:
    page = open_page(f"/verdict/{ids['image']}", at=PAGE)
    wait_for(page, "document.querySelector('.v-base')?.naturalWidth > 0")
    canvas = page.locator(".v-canvas")
    canvas.focus()
    page.keyboard.press("+")
    assert page.evaluate(SCALE) == "1.50"
    page.keyboard.press("+")
    before = page.evaluate("document.querySelector('.v-zoomed').style.transform")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.querySelector('.v-zoomed').style.transform") != before
    page.keyboard.press("0")
    assert page.evaluate(SCALE) == "1.00"
    page.click("button[data-zoom=in]")
    assert page.evaluate(SCALE) == "1.50"
    page.click("button[data-zoom=all]")
    canvas.dblclick(position={"x": 60, "y": 60})
    assert page.evaluate(SCALE) == "3.00"
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 150)
    page.mouse.up()
    left = page.evaluate("new DOMMatrix(getComputedStyle(document.querySelector('.v-zoomed')).transform).e")
    assert left == pytest.approx(-120 - 80, abs=2)  # zoomed about (60, 60), then moved by 80 to the left
    for _ in range(12):
        page.keyboard.press("-")
    assert page.evaluate(SCALE) == "1.00"


def test_the_heatmap_follows_its_slider_at_any_zoom(open_page: Any, ids: dict[str, str]) -> None:
    page = open_page(f"/verdict/{ids['image']}", at=PAGE)
    page.locator(".v-controls input[type=range]").fill("30")
    opacity = "getComputedStyle(document.querySelector('.v-map')).opacity"
    assert page.evaluate(opacity) == "0.3"
    page.locator(".v-controls input[type=range]").press("ArrowRight")
    assert page.evaluate(opacity) == "0.31"
    page.locator("h1").press("h")
    assert page.evaluate(opacity) == "0"


def test_a_normal_picture_stands_in_for_the_sample_until_it_is_chosen_again(
    open_page: Any, ids: dict[str, str]
) -> None:
    page = open_page(f"/verdict/{ids['image']}", at=PAGE)
    own = page.get_attribute(".v-base", "src")
    example = page.locator(".v-example").first
    example.click()
    assert page.get_attribute(".v-base", "src") == example.get_attribute("data-picture") != own
    assert page.locator(".v-map").is_hidden()
    assert example.get_attribute("aria-pressed") == "true"
    example.click()
    assert page.get_attribute(".v-base", "src") == own
    assert page.locator(".v-map").is_visible()


def test_beside_the_list_normal_pictures_come_a_moment_later(open_page: Any, ids: dict[str, str]) -> None:
    page = open_page(f"/verdicts?modality=image&open={ids['image']}", at=".v-detail")
    page.locator(".v-example").first.wait_for()
    assert page.locator(".v-example span").first.inner_text() == "Expected"
    page.locator(".v-example").first.click()
    assert page.get_attribute(".v-base", "src").endswith("/expected.png")
    wait_for(page, "document.querySelector('.v-base').naturalWidth > 0")


def test_a_clip_is_played_paused_and_stepped_through(open_page: Any, ids: dict[str, str]) -> None:
    page = open_page(f"/verdict/{ids['clip']}", at=PAGE)
    assert page.evaluate(SHOWN) == "3"
    assert page.locator(".v-screen .v-map").is_visible()
    page.locator(".v-player").focus()
    page.keyboard.press(",")
    assert page.evaluate(SHOWN) == "2"
    assert page.locator(".v-screen .v-map").is_hidden()  # the map belongs to the last frame
    assert page.evaluate("document.querySelector('.v-player .v-cursor').getAttribute('x1')").startswith("666")
    page.keyboard.press(" ")
    seen = set[str]()
    wait_until(page, lambda: len(seen.add(page.evaluate(SHOWN)) or seen) == 4, "all frames are played in turn")
    page.keyboard.press(" ")
    assert page.inner_text(".v-play") == "▶ Play"
    page.locator(".v-curve").click(position={"x": 2, "y": 10})
    assert page.evaluate(SHOWN) == "0"


def test_channels_show_their_range_the_window_and_the_reading_under_the_pointer(
    open_page: Any, ids: dict[str, str]
) -> None:
    page = open_page(f"/verdict/{ids['window']}", at=PAGE)
    assert "temperature_c is too low: 79." in page.inner_text(".v-paragraph")
    first = page.locator(".v-channel").first
    assert first.locator(".v-side").inner_text() == "too low"
    for kind in ("v-band", "v-window", "v-expected", "v-line", "v-span"):
        assert first.locator(f".v-lines .{kind}").count() >= 1, kind
    assert page.locator(".v-plot > .v-axis time").count() == 5
    box = first.locator(".v-lines").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + 20)
    page.wait_for_selector(".v-readout:has-text('expected 8')")
    text = first.locator(".v-readout").inner_text()
    assert text.startswith("79.")
    assert "normal 88" in text
    page.mouse.move(5, 5)
    wait_for(page, "document.querySelector('.v-readout').textContent.includes('of the deviation')")


def test_the_history_leads_to_other_verdicts(open_page: Any, ids: dict[str, str]) -> None:
    page = open_page(f"/verdict/{ids['window']}", at=PAGE)
    bar = page.locator(".v-history rect").nth(3)
    wanted = bar.get_attribute("data-sample")
    bar.click()
    page.wait_for_selector(f"dd:text('{wanted}')")


def test_a_shared_page_works_without_a_session_and_asks_for_nothing_else(
    console: RunningConsole, open_page: Any, ids: dict[str, str]
) -> None:
    made = console.do(add_share(console.store, uuid.UUID(ids["window"]), 60.0, "user:anna"))
    assert made is not None
    path = f"/shared/{made[1]}"
    asked: list[str] = []
    open_page._profile.on("request", lambda request: asked.append(request.url))
    page = open_page(path, at=PAGE)
    page.mouse.move(*_middle(page, ".v-lines"))
    page.wait_for_selector(".v-readout:has-text('normal')")
    outside = [url for url in asked if "/static/" not in url and path not in url and "favicon" not in url]
    assert outside == []
    assert page.locator("a").count() == 0


def test_a_page_that_fails_loads_again_with_a_pause_and_recovers(
    open_page: Any, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[float] = []

    def fail(*_: object) -> dict[str, Any]:
        loads.append(time.monotonic())
        raise RuntimeError("a fault of the console")

    with monkeypatch.context() as broken:
        broken.setattr(reading, "detail_view", fail)
        page = open_page(f"/verdict/{ids['row']}", at=".v-problem")
        wait_until(page, lambda: len(loads) > 1, "the page tries again")
        assert loads[1] - loads[0] > 4
    page.wait_for_selector(PAGE)


def _middle(page: Any, selector: str) -> tuple[float, float]:
    box = page.locator(selector).first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_axe_finds_nothing_serious_on_the_pages_of_verdicts(
    console: RunningConsole, open_page: Any, ids: dict[str, str], width: int, dark: bool
) -> None:
    made = console.do(add_share(console.store, uuid.UUID(ids["image"]), 60.0, "user:anna"))
    assert made is not None
    found = []
    for path in [*(f"/verdict/{sample_id}" for sample_id in ids.values()), f"/shared/{made[1]}"]:
        page = open_page(path, width=width, dark=dark, at=PAGE)
        results = Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]}).response
        found += [
            (path, rule["id"], rule["impact"], rule["nodes"][0]["html"][:200])
            for rule in results["violations"]
            if rule["impact"] in ("serious", "critical") or rule["id"] in ("page-has-heading-one", "region")
        ]
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.locator("h1").count() == 1
        page.close()
    assert found == []
