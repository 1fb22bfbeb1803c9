"""Live views in Chromium, with a real service and a real agent: a row, a window, a picture, and plain reasons."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.store.audit import AuditFilter, audit_page
from cloud.user_roles import UserRole
from edge.uplink.enrolment import enroll
from shared.images import encode_png
from shared.signing_keys import public_pem
from tests.cloud.console.browsing import wait_for, wait_until
from tests.cloud.console.served_service import Person, ServedService
from tests.cloud.console.test_usability import ALL_RULES, COLOURS
from tests.edge.bundles import CHANNELS, image_bundle, normal_images, normal_rows, series_bundle, tabular_bundle
from tests.edge.device import Device, write_csv

SHOWN = ".v-live-view[data-state=shown]"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
HIDE, SHOW = (
    f"Object.defineProperty(document, 'hidden', {{ get: () => {hidden}, configurable: true }});"
    "document.dispatchEvent(new Event('visibilitychange'))"
    for hidden in ("true", "false")
)
VIEWS = (DESKTOP, "light", ALL_RULES), (DESKTOP, "dark", COLOURS), (PHONE, "light", ALL_RULES)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[ServedService]:
    service = ServedService(tmp_path_factory.mktemp("service"), Ed25519PrivateKey.generate(), heartbeat_s=1)
    yield service
    service.stop()


def settings_of(folder: Path, key: Ed25519PrivateKey, served: ServedService) -> dict[str, Any]:
    """Sources of a row, a window and a picture, each with a published bundle."""
    pictures = folder / "pictures"
    pictures.mkdir()
    (pictures / "door.png").write_bytes(encode_png(normal_images(1, seed=3)[0]))
    rows = normal_rows(80, seed=5)
    rows[-1] += [30.0, 0.0, 0.0]  # the newest row, and the end of the newest window
    readings = write_csv(folder / "readings.csv", rows)
    bundles = {
        "rows": tabular_bundle(key, name="rows"),
        "windows": series_bundle(key, name="windows"),
        "door": image_bundle(key, name="door"),
    }
    sources = []
    for name, bundle in bundles.items():
        served.do(served.cloud.service.registry.publish(bundle))
        bundle.save(folder / f"{name}.bundle")
        given = {"kind": "images", "path": pictures} if name == "door" else {"kind": "replay", "path": readings}
        sources.append({"id": name, "bundle": folder / f"{name}.bundle", "artefact": "int8_onnxruntime", **given})
    (folder / "key.pem").write_bytes(public_pem(key.public_key()))
    return {
        "bundle_key": folder / "key.pem",
        "sources": sources,
        "router": {"audit_share": 0.0},
        "uplink": {"backoff_initial_s": 0.05, "backoff_max_s": 0.4, "heartbeat_s": 0.5},
    }


@pytest.fixture(scope="module")
def agent(served: ServedService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """A running agent; its sources have ended, so that each keeps its newest sample."""
    folder = tmp_path_factory.mktemp("agent")
    device = Device(folder / "device", settings_of(folder, served.key, served))
    enroll(device.state, served.do(served.cloud.token("press-07")))
    device.start()
    device.until(lambda: device.status().get("sources") and is_done(device), timeout_s=60)
    yield device
    device.close()


def is_done(device: Device) -> bool:
    status = device.status()
    return status["link"]["connected"] and all(source["state"] == "ended" for source in status["sources"].values())


@pytest.fixture(scope="module")
def operator(served: ServedService, browser: Any) -> Iterator[Person]:
    """An operator; at the end nothing may have failed in the browser."""
    person = Person(served, browser, "ada", UserRole.OPERATOR)
    yield person
    person.context.close()
    assert person.tabs.problems == []


def open_device(served: ServedService, person: Person) -> Any:
    page = person.page
    page.set_viewport_size(DESKTOP)
    page.goto(f"{served.url}/device/press-07")
    page.wait_for_selector("[data-set-source=door]")
    wait_for(page, "document.documentElement.dataset.live")
    return page


def look(page: Any, source: str) -> None:
    page.click(f"[data-set-source={source}]")
    page.wait_for_selector(f"#live-view {SHOWN}")


async def looked(served: ServedService) -> list[tuple[str, str]]:
    async with served.cloud.service.store.reading() as connection:
        entries = await audit_page(connection, AuditFilter(action="device.viewed", subject="press-07"))
    return [(entry.actor, entry.details["source"]) for entry in entries]


def test_an_operator_looks_at_each_source_and_the_agent_and_the_service_note_it(
    served: ServedService, agent: Device, operator: Person
) -> None:
    page = open_device(served, operator)
    look(page, "rows")
    shown = page.inner_text("#live-view .v-features")
    assert all(name in shown for name in CHANNELS)
    assert "too high" in shown  # heat, by the normal range of the published bundle
    page.keyboard.press("Escape")
    page.wait_for_selector("#live-view", state="hidden")
    assert page.evaluate("document.activeElement.dataset.setSource") == "rows"
    page.focus("[data-set-source=windows]")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#live-view {SHOWN} .v-channel")
    assert page.inner_text("#live-view [data-shows=source]") == "windows"
    assert page.inner_text("#live-view .v-channel >> nth=0 >> b") == "heat"  # outside its normal range
    assert page.locator("#live-view .v-channel").count() == len(CHANNELS)
    page.click("#live-view [data-closes]")
    look(page, "door")
    picture = page.locator("#live-view .v-live-picture")
    assert picture.evaluate("image => [image.complete, image.naturalWidth]") == [True, 32]
    assert "32 by 32 pixels" in picture.get_attribute("alt")
    assert "ago" in page.inner_text("#live-view .v-pairs")
    page.click("#live-view [data-closes]")
    assert page.locator(".v-live-picture").count() == 0
    assert served.do(looked(served)) == [("account:ada", name) for name in ("door", "windows", "rows")]
    agent.until(lambda: agent.counters()["live_views"] == 3)
    assert agent.status()["last_viewer"] == "ada"
    assert agent.text().count("live_view source=") == 3


def test_the_dialog_is_accessible_and_fits_a_phone(served: ServedService, agent: Device, operator: Person) -> None:
    page = open_device(served, operator)
    page.emulate_media(reduced_motion="reduce")
    for source in ("rows", "windows", "door"):
        look(page, source)
        for size, scheme, rules in VIEWS:
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme)
            results = Axe().run(page, options={"runOnly": rules, "resultTypes": ["violations"]}).response
            found = [rule["id"] for rule in results["violations"] if rule["impact"] in ("serious", "critical")]
            assert found == [], (source, size, scheme)
            assert page.evaluate("document.querySelector('#live-view').scrollWidth") <= size["width"]
        page.set_viewport_size(DESKTOP)
        page.click("#live-view [data-closes]")


def test_keep_looking_asks_again_until_it_is_switched_off(
    served: ServedService, agent: Device, operator: Person
) -> None:
    page = open_device(served, operator)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/live-view" in request.url else None)
    before = len(served.do(looked(served)))
    look(page, "door")
    page.check("#live-view [name=keep]")
    wait_until(page, lambda: len(asked) >= 4, "it does not ask again")
    page.uncheck("#live-view [name=keep]")
    page.wait_for_timeout(300)  # the request under way
    count = len(asked)
    page.wait_for_timeout(2500)
    assert len(asked) == count
    assert len(served.do(looked(served))) <= before + 1  # one entry a minute
    page.check("#live-view [name=keep]")
    wait_until(page, lambda: len(asked) > count, "it does not ask again")
    page.evaluate(HIDE)
    wait_until(page, lambda: not page.is_checked("#live-view [name=keep]"), "it goes on while the page is hidden")
    assert "Ended" in page.inner_text("#live-view .v-live-state")
    page.evaluate(SHOW)
    count = len(asked)
    page.check("#live-view [name=keep]")
    wait_until(page, lambda: len(asked) > count, "it does not ask again")
    page.keyboard.press("Escape")
    page.wait_for_timeout(300)
    count = len(asked)
    page.wait_for_timeout(2500)
    assert len(asked) == count


def test_keep_looking_ends_after_a_minute(served: ServedService, agent: Device, operator: Person) -> None:
    page = operator.context.new_page()
    page.set_default_timeout(60_000)
    page.clock.install()
    page.goto(f"{served.url}/device/press-07")
    look(page, "door")
    page.check("#live-view [name=keep]")
    page.wait_for_selector("#live-view .v-live-state:has-text('Asked every 2 s')")
    page.clock.fast_forward(30_000)
    page.wait_for_timeout(300)
    assert page.is_checked("#live-view [name=keep]")
    page.clock.fast_forward(31_000)
    wait_until(page, lambda: not page.is_checked("#live-view [name=keep]"), "it goes on after a minute")
    assert "Ended" in page.inner_text("#live-view .v-live-state")
    page.close()


def test_a_sample_stays_on_the_page_while_the_device_shows_no_more(
    served: ServedService, agent: Device, operator: Person
) -> None:
    agent.terminate(20)
    before = agent.status()["process_id"]
    agent.settings["live_view"] = {"max_per_minute": 0.1}
    agent.start()
    agent.until(lambda: agent.status()["process_id"] != before and is_done(agent), timeout_s=60)
    page = open_device(served, operator)
    look(page, "door")
    page.click("#live-view [data-look]")
    page.wait_for_selector("#live-view .v-live-state:has-text('live_view.max_per_minute')")
    page.check("#live-view [name=keep]")
    page.wait_for_selector("#live-view .v-live-state:has-text('Asked again every 10 s')")
    assert page.is_checked("#live-view [name=keep]")
    assert page.locator("#live-view .v-live-picture").count() == 1
    page.keyboard.press("Escape")


def test_a_page_says_plainly_why_nothing_is_shown(served: ServedService, agent: Device, operator: Person) -> None:
    page = open_device(served, operator)
    agent.terminate(20)
    page.click("[data-set-source=door]")
    page.wait_for_selector("#live-view [data-state='not connected']:has-text('not connected now')")
    agent.settings["live_view"] = {"allowed": False}
    agent.start()
    agent.until(lambda: agent.status()["permits_live_views"] is False and is_done(agent), timeout_s=60)
    page.click("#live-view [data-look]")
    page.wait_for_selector("#live-view [data-state='not permitted']:has-text('live_view.allowed')")
    page.route("**/live-view*", lambda route: route.abort())
    page.click("#live-view [data-look]")
    page.wait_for_selector("#live-view .v-failed:has-text('The service does not answer')")
    page.unroute("**/live-view*")


def test_a_viewer_has_no_button(served: ServedService, agent: Device, browser: Any) -> None:
    viewer = Person(served, browser, "vera", UserRole.VIEWER)
    page = viewer.page
    page.goto(f"{served.url}/device/press-07")
    page.wait_for_selector(".v-running")
    assert page.locator("[data-set-source]").count() == 0
    assert page.locator("#live-view").count() == 0
    viewer.context.close()
    assert viewer.tabs.problems == []
