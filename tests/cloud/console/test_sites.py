"""Accounts that are restricted to sites: no page, part, stream or answer names a device of another site."""

import re
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from cloud.accounts.access_table import ROUTES, RouteAccess, SiteRule
from cloud.console import create_app
from cloud.console.live import TOPICS
from cloud.jobs.desk import TrainingDesk
from cloud.notice_kinds import NoticeKind
from cloud.rest import create_api
from cloud.service.people import create_people_app
from cloud.settings import CloudSettings
from cloud.store import Store
from cloud.store.fleet import Place, set_place
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.notices import Absences, Condition, follow
from cloud.store.queries import verdict_page
from cloud.store.review.builder import build_items
from cloud.store.verdict_keys import VerdictFilter
from cloud.user_roles import UserRole
from tests.accounts import CHEAP, sign_in
from tests.cloud.console.filled_store import ARTERY, CAMERA, SHUTTLE, Fleet

OWN, OTHERS = CAMERA, (SHUTTLE, ARTERY)
SITE = "north"
FOREIGN = re.compile("|".join((*(kind.device_id for kind in OTHERS), "southern-site", "press-7")))


@pytest.fixture
async def browsers(fleet: Fleet, tmp_path: Path) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """Signed-in browsers of two admins, one of them for one site, on a console with verdicts of two sites."""
    await fleet.send_many(8)
    await set_place(fleet.store, [OWN.device_id], Place(site=SITE, group="cameras"))
    await set_place(fleet.store, [kind.device_id for kind in OTHERS], Place(site="southern-site"))
    await label_and_notice(fleet.store)
    await build_items(fleet.store)
    settings = CloudSettings.model_validate({"data_dir": tmp_path, "accounts": CHEAP})
    desk = TrainingDesk(fleet.store, fleet.store, fleet.registry, settings)
    api = create_api(fleet.store, fleet.store, late_after_s=60.0, registry=fleet.registry, training=desk)
    console = create_app(fleet.store, fleet.registry, training=desk)
    app = create_people_app(settings, fleet.store, fleet.store, api=api, console=console)
    opened = {}
    for name, sites in (("ada", (SITE,)), ("bob", ())):
        browser = await sign_in(fleet.store, UserRole.ADMIN, name, sites=sites)
        opened[name] = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:7480", headers=browser.headers
        )
    yield opened
    for client in opened.values():
        await client.aclose()


async def label_and_notice(store: Store) -> None:
    for kind in (OWN, *OTHERS):
        sample_id = (await samples_of(store, kind.device_id))[0]
        await add_label(store, sample_id, NewLabel(Label.REAL, "ada"), "account:ada")
    silent = [Condition(NoticeKind.DEVICE_SILENT, kind.device_id, f"{kind.device_id} is silent") for kind in OTHERS]
    silent.append(Condition(NoticeKind.DEVICE_SILENT, OWN.device_id, "silent"))
    await follow(store, silent, Absences(60.0), lambda _: {}, lambda _: (), now_s=time.time())


async def samples_of(store: Store, device_id: str) -> list[uuid.UUID]:
    async with store.reading() as connection:
        return [row.sample_id for row in (await verdict_page(connection, VerdictFilter(device_id))).rows]


def paths_of(entry: RouteAccess, fleet: Fleet, own: uuid.UUID) -> str:
    """The path of a route with values that an account of the site may name."""
    values = {
        "sample_id": str(own),
        "device_id": OWN.device_id,
        "bundle_id": fleet.bundle_ids[OWN.bundle_name],
        "group": "cameras",
        "name:path": "image.png",
        "item": "1",
        "digest": "x",
        "token_id": "0123456789abcdef",
        "form": "zip",
        "share_id": "0" * 16,
        "name": "x.js",
        "secret": "x",
        "job_id": "0" * 16,
        "upload_id": "0" * 16,
        "number": "1",
    }
    query = f"?bundle_name={OWN.bundle_name}&device_id={OWN.device_id}" if entry.path.endswith("/samples") else ""
    return re.sub(r"\{([a-z_:]+)\}", lambda found: values[found[1]], entry.path) + query


async def test_no_answer_names_a_device_of_another_site(fleet: Fleet, browsers: dict[str, httpx.AsyncClient]) -> None:
    (own, *_) = await samples_of(fleet.store, OWN.device_id)
    seen = 0
    for entry in ROUTES:
        if "GET" not in entry.methods.split() or entry.role is None or entry.stays_open or "openapi" in entry.path:
            continue
        answer = await browsers["ada"].get(paths_of(entry, fleet, own), headers={"Accept": "text/html"})
        if entry.sites is SiteRule.REFUSED:
            assert (answer.status_code, "is about all sites" in answer.text) == (403, True), entry.path
            continue
        assert answer.status_code in (200, 303, 404), (entry.path, answer.text)
        found = FOREIGN.search(answer.content.decode("latin-1"))
        assert found is None, (entry.path, found)
        seen += OWN.device_id in answer.text
    assert seen > 8, "the account sees its own devices"
    everything = (await browsers["bob"].get("/devices")).text
    assert FOREIGN.search(everything)
    assert OWN.device_id in everything


async def test_what_an_account_names_of_another_site_is_unknown(
    fleet: Fleet, browsers: dict[str, httpx.AsyncClient]
) -> None:
    foreign = (await samples_of(fleet.store, SHUTTLE.device_id))[0]
    opened = (await browsers["ada"].get("/verdicts", params={"open": str(foreign)})).text
    assert f"There is no sample {foreign}" in opened
    for path in (
        f"/?device={SHUTTLE.device_id}",
        f"/verdicts?device={SHUTTLE.device_id}",
        f"/verdict/{foreign}",
        f"/parts/verdict/{foreign}",
        f"/media/{foreign}/image.png",
        f"/api/v1/devices/{SHUTTLE.device_id}",
        f"/api/v1/verdicts?device={SHUTTLE.device_id}",
    ):
        assert (await browsers["ada"].get(path)).status_code == 403, path
        assert (await browsers["bob"].get(path)).status_code in (200, 404), path


async def test_figures_and_lists_are_those_of_the_sites(fleet: Fleet, browsers: dict[str, httpx.AsyncClient]) -> None:
    await fleet.leave_waiting(SHUTTLE)
    await fleet.leave_waiting(OWN)
    figures = {name: (await client.get("/api/fleet")).json() for name, client in browsers.items()}
    assert (figures["ada"]["devices"], figures["ada"]["pending"]) == (1, 1)
    assert (figures["bob"]["devices"], figures["bob"]["pending"]) == (5, 2)
    own = await samples_of(fleet.store, OWN.device_id)
    assert figures["ada"]["verdicts"] == len(own)
    verdicts = {name: (await client.get("/api/v1/verdicts")).json()["items"] for name, client in browsers.items()}
    assert [item["sample_id"] for item in verdicts["ada"]] == [str(sample_id) for sample_id in own]
    assert len(verdicts["bob"]) == 8
    assert [item["subject"] for item in (await browsers["ada"].get("/api/v1/notices")).json()["items"]] == [
        OWN.device_id
    ]
    assert [group["group"] for group in (await browsers["ada"].get("/api/v1/groups")).json()["items"]] == ["cameras"]


async def test_many_devices_of_a_site_are_read_in_the_order_of_all_verdicts(
    fleet: Fleet, browsers: dict[str, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_ranges = (await browsers["ada"].get("/api/v1/verdicts?decision=anomalous")).json()["items"]
    monkeypatch.setattr("cloud.store.verdict_ranges.MAX_SITE_RANGES", 0)
    for query in ("", "?decision=anomalous", "?text=*0", "?label=real"):
        items = (await browsers["ada"].get(f"/api/v1/verdicts{query}")).json()["items"]
        assert {item["device_id"] for item in items} <= {OWN.device_id}, query
        assert not query.startswith("?decision") or items == by_ranges


async def test_the_name_of_the_person_is_on_every_page(browsers: dict[str, httpx.AsyncClient]) -> None:
    for name, client in browsers.items():
        for path in ("/", "/devices", "/bundle/unknown", "/verdict/unknown"):
            answer = await client.get(path, headers={"Accept": "text/html"})
            if answer.status_code != 403:
                assert f'<span class="v-cut">{name}</span>' in answer.text, path


async def test_each_audience_has_a_stream_of_its_own(fleet: Fleet) -> None:
    app = create_app(fleet.store, fleet.registry)
    from starlette.requests import Request

    from cloud.accounts.identity import SCOPE_KEY, SignedIn

    def of(*sites: str):
        person = SignedIn("ada", UserRole.VIEWER, sites)
        return app.audiences.of(Request({"type": "http", SCOPE_KEY: person}))

    await set_place(fleet.store, [OWN.device_id], Place(site=SITE))
    assert of("b", "a") is of("a", "b")
    assert of() is not of(SITE)
    strips = []
    for audience in (of(), of(SITE)):
        messages = audience.feed.messages(TOPICS)
        assert await anext(messages) == b"retry: 1000\n\n"
        strips.append((await anext(messages)).decode())
        await messages.aclose()
    assert "4 of 5" in strips[0]
    assert "1 of 1" in strips[1]
    for number in range(100):
        of(f"site-{number}")
    assert len(app.audiences._known) <= 65
    await app.end_streams()
