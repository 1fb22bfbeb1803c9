"""Pages of share links: one verdict, nothing else, until the link ends; strangers learn nothing and are slowed down."""

import re
import uuid
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import delete, update

from cloud.console import create_app
from cloud.console.why.shares import REQUESTS
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.schema import samples, share_links
from cloud.store.share_links import add_share, revoke_share, shares_of
from tests.cloud.console.filled_store import ARTERY, CAMERA, DOOR, SHUTTLE, XSS, Fleet


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(fleet.store, fleet.registry)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("192.0.2.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
        yield client


async def share(fleet: Fleet, sample_id: uuid.UUID) -> tuple[str, str]:
    made = await add_share(fleet.store, sample_id, 60.0, "user:anna")
    assert made is not None
    return f"/shared/{made[1]}", made[0].share_id


async def test_a_link_shows_its_verdict_and_pictures_without_a_session(fleet: Fleet, client: httpx.AsyncClient) -> None:
    for kind, at in ((CAMERA, "v-canvas"), (DOOR, "v-frames"), (SHUTTLE, "v-features"), (ARTERY, "v-plot")):
        path, _ = await share(fleet, (await fleet.send(kind, odd=True)).sample_id)
        answer = await client.get(path)
        assert answer.status_code == 200
        assert at in answer.text
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        for address in re.findall(r'(?:src|href|data-map|data-source)="([^"]*)"', answer.text):
            if not address or address.startswith("/static/"):
                continue
            assert address.startswith(f"{path}/"), address
            picture = await client.get(address)
            assert picture.status_code == 200, address
            assert picture.headers["cache-control"] == "no-store"


async def test_a_link_names_no_other_sample_and_no_label(fleet: Fleet, client: httpx.AsyncClient) -> None:
    other = (await fleet.send(CAMERA, odd=True)).sample_id
    await add_label(fleet.store, other, NewLabel(Label.REAL, "ben", "inner note"), "user:ben")
    own = (await fleet.send(CAMERA, odd=True, origin=XSS)).sample_id
    await add_label(fleet.store, own, NewLabel(Label.REAL, "ben", "inner note"), "user:ben")
    path, _ = await share(fleet, own)
    text = (await client.get(path)).text
    assert str(own) in text
    assert str(other) not in text
    assert "inner note" not in text
    assert "ben" not in text
    assert "<img src=x" not in text
    assert "/verdict/" not in text
    assert (await client.get(f"{path}/media/{other}/image.png")).status_code == 404


async def test_openings_are_counted(fleet: Fleet, client: httpx.AsyncClient) -> None:
    sample_id = (await fleet.send(CAMERA)).sample_id
    path, _ = await share(fleet, sample_id)
    for _ in range(2):
        await client.get(path)
    await client.get(f"{path}/media/image.png")
    async with fleet.store.reading() as connection:
        (listed,) = await shares_of(connection, sample_id)
    assert listed.opened == 2
    assert listed.opened_at_s is not None


async def test_a_link_that_has_ended_shows_nothing(fleet: Fleet, client: httpx.AsyncClient) -> None:
    sample_id = (await fleet.send(CAMERA)).sample_id
    revoked, share_id = await share(fleet, sample_id)
    assert (await client.get(f"{revoked}/media/image.png")).status_code == 200
    await revoke_share(fleet.store, sample_id, share_id, "user:anna")
    expired, _ = await share(fleet, sample_id)
    async with fleet.store.writing() as connection:
        await connection.execute(update(share_links).values(expires_at_s=1.0))
    gone, _ = await share(fleet, (await fleet.send(SHUTTLE)).sample_id)
    async with fleet.store.writing() as connection:
        await connection.execute(delete(samples).where(samples.c.device_id == SHUTTLE.device_id))
    for path in (revoked, f"{revoked}/media/image.png", f"{revoked}/verdict.json", expired, gone):
        answer = await client.get(path)
        assert answer.status_code == 404, path
        assert "unknown, has expired, or was revoked" in answer.text


async def test_guessing_is_slowed_down_and_requests_are_bounded(fleet: Fleet, client: httpx.AsyncClient) -> None:
    path, _ = await share(fleet, (await fleet.send(SHUTTLE)).sample_id)
    statuses = [(await client.get(f"/shared/guess-{number}")).status_code for number in range(12)]
    assert statuses == [404] * 10 + [429] * 2
    assert (await client.get(path)).status_code == 429
    app = create_app(fleet.store, fleet.registry)
    other = httpx.ASGITransport(app, client=("192.0.2.9", 1))
    async with httpx.AsyncClient(transport=other, base_url="http://console") as someone:
        statuses = [(await someone.get(f"{path}/verdict.json")).status_code for _ in range(REQUESTS + 1)]
    assert statuses == [200] * REQUESTS + [429]


async def test_nothing_is_changed_through_a_link(fleet: Fleet, client: httpx.AsyncClient) -> None:
    path, _ = await share(fleet, (await fleet.send(CAMERA)).sample_id)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await client.request(method, path)).status_code == 405
