"""Every page of the console by keyboard, as axe-core sees it, on each screen, and at twice the size."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from cloud.accounts.access_table import ROUTES
from cloud.rollouts.stages import parse_stages
from cloud.store.review.builder import build_items
from cloud.store.review.item_filter import ItemFilter, ItemState
from cloud.store.review.items import ItemOrder, item_page
from cloud.store.rollouts import begin
from cloud.store.training_jobs import NewJob, add_job
from cloud.user_roles import UserRole
from shared.bundle import sign
from tests.cloud.console.browsing import wait_for
from tests.cloud.console.filled_store import ARTERY, CAMERA, KEY, KINDS, SHUTTLE, XSS, Fleet, manifest
from tests.cloud.console.fleet.test_administrator import replayed
from tests.cloud.console.keyboard import keyboard_problems
from tests.cloud.console.models.test_comparison_pages import compare
from tests.cloud.console.pages import is_page
from tests.cloud.console.served_service import Person, ServedService
from tests.cloud.console.test_usability import ALL_RULES, COLOURS

PAGES = [route.path for route in ROUTES if is_page(route)]
OPENED = ["/verdicts beside", "/ beside"]  # with one of the list opened
TABLET, TWICE = {"width": 768, "height": 1024}, {"width": 640, "height": 400}
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
MAX_CONTROLS = 80
OUT_OF_REACH = f"""() => {{
    const controls = [...document.querySelectorAll("main :is(a[href], button, input, select, textarea, summary)")];
    return controls.filter((one) => one.checkVisibility({{ visibilityProperty: true }})).slice(0, {MAX_CONTROLS})
        .filter((one) => {{
            one.scrollIntoView({{ block: "center", inline: "center", behavior: "instant" }});
            const box = one.getBoundingClientRect();
            const seen = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
            return !seen || !(one.contains(seen) || seen.contains(one) || one.labels?.length);
        }}).map((one) => one.outerHTML.slice(0, 160));
}}"""


class FilledService(ServedService):
    """A service with something to show on each page; `addresses` has an address for each path with a parameter."""

    async def prepare(self) -> None:
        """Fill the store through the code of the service."""
        store, registry = self.cloud.service.store, self.cloud.service.registry
        self.fleet = fleet = Fleet(store, registry)
        number, _ = await compare(fleet)
        for kind in KINDS:
            verdict = await fleet.send(kind, odd=True)
        await fleet.send(CAMERA, origin=XSS, odd=True)
        await fleet.heartbeat(ARTERY, 123_000, XSS)
        await build_items(store)
        async with store.reading() as connection:
            item = (await item_page(connection, ItemFilter(state=ItemState.ALL), ItemOrder.NEWEST)).items[0].number
        await replayed(self.cloud)
        second = await registry.publish(sign(manifest(CAMERA, 2), {"edge/note.json": b"2"}, KEY), make_current=False)
        stages = parse_stages("trial=camera-north", "50,100", least_s=3600, least_samples=200)
        told = {"author": "ada", "reason": XSS, "now_s": time.time() - 1200}
        rollout = await begin(store, CAMERA.bundle_name, second.bundle_id, stages, actor="user:ada", **told)
        job = await add_job(store, NewJob({"upload": "none"}, {"name": XSS[:60], "modality": "tabular"}), "user:ada")
        self.addresses = {
            "/device/{device_id}": f"/device/{SHUTTLE.device_id}",
            "/group/{group}": "/group/presses",
            "/verdict/{sample_id}": f"/verdict/{verdict.sample_id}",
            "/bundle/{bundle_id}": f"/bundle/{fleet.bundle_ids[SHUTTLE.bundle_name]}",
            "/models/compare/{number}": f"/models/compare/{number}",
            "/models/rollouts/{number}": f"/models/rollouts/{rollout.number}",
            "/models/training/{job_id}": f"/models/training/{job.job_id}",
            "/verdicts beside": f"/verdicts?open={verdict.sample_id}",
            "/ beside": f"/?state=all&open={item}",
        }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[FilledService]:
    service = FilledService(tmp_path_factory.mktemp("pages"), KEY)
    yield service
    service.stop()


@pytest.fixture(scope="module")
def person(served: FilledService, browser: Any) -> Iterator[Person]:
    """An administrator; at the end nothing may have failed in the browser."""
    person = Person(served, browser, "ada", UserRole.ADMIN)
    yield person
    person.context.close()
    assert person.tabs.problems == []


@pytest.mark.parametrize("path", [*PAGES, *OPENED])
def test_a_page_is_accessible_and_fits_every_screen(served: FilledService, person: Person, path: str) -> None:
    page = person.page
    page.set_viewport_size(DESKTOP)
    answer = page.goto(served.url + served.addresses.get(path, path))
    assert answer.status == 200
    page.wait_for_selector("h1")
    wait_for(page, "document.documentElement.dataset.live || !document.querySelector('.v-strip')")
    found = []
    for size, scheme, rules in ((DESKTOP, "light", ALL_RULES), (DESKTOP, "dark", COLOURS), (PHONE, "light", ALL_RULES)):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # no colour on its way to another
        results = Axe().run(page, options={"runOnly": rules, "resultTypes": ["violations"]}).response
        found += [
            (size["width"], scheme, rule["id"], rule["nodes"][0]["html"][:200])
            for rule in results["violations"]
            if rule["impact"] in ("serious", "critical") or rule["id"] in ("page-has-heading-one", "region")
        ]
    assert found == []
    for size in (DESKTOP, TWICE):
        page.set_viewport_size(size)
        assert keyboard_problems(page) == [], size
    for size in (PHONE, TABLET, TWICE):
        page.set_viewport_size(size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert page.evaluate(OUT_OF_REACH) == [], size
    assert page.locator("h1").count() == 1
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("window.pwned") is None
