"""Webhooks that programs make: for allowed hosts only, signed with a secret that is shown once, for later verdicts."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from cloud.notice_settings import NoticeSettings, allows_host
from cloud.service.notices import center as notice_center
from cloud.service.notices import feed
from cloud.service.notices.center import NoticeCenter
from cloud.store.outbox import drop_old
from cloud.store.schema import deliveries, verdict_feeds
from cloud.store.webhooks import MAX_WEBHOOKS
from shared.webhooks import signature
from tests.cloud.console.filled_store import CAMERA, SHUTTLE, Fleet
from tests.webhook import Hook


@pytest.fixture
def hook() -> Iterator[Hook]:
    started = Hook()
    yield started
    started.close()


@contextlib.asynccontextmanager
async def serving(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, *hosts: str) -> AsyncIterator[NoticeCenter]:
    """The part of a service that delivers, with short waits."""
    for module, name, value in (
        (notice_center, "POLL_S", 0.02),
        (notice_center, "WEBHOOKS_EVERY_S", 0.02),
        (notice_center, "FIRST_WAIT_S", 0.02),
        (feed, "SETTLED_S", 0.0),
    ):
        monkeypatch.setattr(module, name, value)
    settings = NoticeSettings.model_validate({"webhook_hosts": hosts, "service_free_bytes": 0})
    center = NoticeCenter(fleet.store, settings, fleet.store.path.parent, lambda _: None)
    task = asyncio.create_task(center.run())
    yield center
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


async def made(client: httpx.AsyncClient, url: str, **more: object) -> dict[str, Any]:
    response = await client.post("/webhooks", json={"url": url, **more})
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_a_webhook_gets_the_verdicts_it_wants_signed_with_its_secret(
    fleet: Fleet, client: httpx.AsyncClient, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.send(SHUTTLE, odd=True, at_s=time.time() - 60)
    webhook = await made(client, hook.url, decisions=["anomalous", "normal"])
    listed = (await client.get("/webhooks")).json()["items"]
    assert listed == [{name: value for name, value in webhook.items() if name != "secret"}]
    assert webhook["secret"] not in (await client.get("/audit")).text
    async with serving(fleet, monkeypatch, "127.0.0.1"):
        verdicts = [await fleet.send(kind, odd=True, at_s=time.time()) for kind in (SHUTTLE, CAMERA)]
        await until(lambda: len(hook.bodies) >= 2)
        assert {body["sample_id"] for body in hook.bodies} == {str(item.sample_id) for item in verdicts}
        headers, body = hook.requests[0]
        expected = signature(webhook["secret"].encode(), headers["Vedette-Timestamp"], body)
        assert headers["Vedette-Signature"] == f"v1={expected}"
        assert (await client.delete(f"/webhooks/{webhook['webhook_id']}")).status_code == 204
        await asyncio.sleep(0.2)
        hook.requests.clear()
        await fleet.send(SHUTTLE, odd=True, at_s=time.time() - 1)
        await asyncio.sleep(0.2)
        assert hook.bodies == []
    assert (await client.get("/webhooks")).json()["items"] == []
    assert (await client.delete(f"/webhooks/{webhook['webhook_id']}")).status_code == 404
    async with fleet.store.reading() as connection:
        for table in (deliveries, verdict_feeds):
            assert (await connection.execute(select(func.count()).select_from(table))).scalar_one() == 0


async def test_a_receiver_that_fails_is_listed_with_its_reason_and_gets_the_messages_later(
    fleet: Fleet, client: httpx.AsyncClient, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(client, hook.url, decisions=["anomalous", "normal", "undecided"], groups=["default"])
    await made(client, hook.url, groups=["elsewhere"])
    hook.status = 503
    await fleet.send(SHUTTLE, at_s=time.time())
    async with serving(fleet, monkeypatch, "127.0.0.1"):
        await until(lambda: hook.requests)
        async with asyncio.timeout(10):
            while (items := (await client.get("/webhooks")).json()["items"])[0]["error"] == "":
                await asyncio.sleep(0.02)
        assert [item["waiting"] for item in items] == [1, 0]
        assert "503" in items[0]["error"]
        assert await drop_old(fleet.store, [], 0.0) == 0  # what is not in the settings is not unknown
        hook.status = 200
        hook.requests.clear()
        await until(lambda: hook.bodies)
    assert len({body["delivery_id"] for body in hook.bodies}) == 1


async def test_a_host_that_the_settings_no_longer_allow_gets_nothing(
    fleet: Fleet, client: httpx.AsyncClient, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(client, hook.url, decisions=["anomalous", "normal"])
    await fleet.send(SHUTTLE, odd=True, at_s=time.time())
    async with serving(fleet, monkeypatch, "other.example"):
        async with asyncio.timeout(10):
            while "webhook_hosts" not in (await client.get("/webhooks")).json()["items"][0]["error"]:
                await asyncio.sleep(0.02)
    assert hook.requests == []


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://hooks.example/a?b=c", 201),
        ("https://HOOKS.EXAMPLE./", 201),
        ("http://example/", 409),
        ("http://10.0.0.1/", 409),
        ("http://127.0.0.1.evil.test/", 409),
        ("http://127.0.0.1@evil.test/", 422),
        ("http://evil.test/@127.0.0.1", 409),
        ("http://evil.test#127.0.0.1", 409),
        ("http://evil.test\\@hooks.example/", 422),
        ("file:///etc/passwd", 422),
        ("http://[::1/", 409),
    ],
)
async def test_only_allowed_hosts_get_webhooks(client: httpx.AsyncClient, url: str, status: int) -> None:
    response = await client.post("/webhooks", json={"url": url})
    assert response.status_code == status, response.text
    if status == 409:
        assert response.json()["type"] == "urn:vedette:problem:webhook-refused"
        assert "notices.webhook_hosts" in response.json()["detail"]


def test_without_the_setting_no_host_is_allowed() -> None:
    assert not allows_host("http://127.0.0.1/", NoticeSettings().webhook_hosts)


async def test_the_number_of_webhooks_is_bounded(client: httpx.AsyncClient) -> None:
    for _ in range(MAX_WEBHOOKS):
        await made(client, "https://hooks.example/")
    response = await client.post("/webhooks", json={"url": "https://hooks.example/"})
    assert (response.status_code, str(MAX_WEBHOOKS) in response.text) == (409, True)
