"""Many requests of the console for queries that take long, beside devices of the same service."""

import asyncio
import dataclasses
import time

import httpx
from sqlalchemy import text

from cloud.console import api
from cloud.service import event_notifier, process
from cloud.service.main import _make_console
from cloud.store.read_queue import CONSOLE_READS
from tests.accounts import sign_in
from tests.cloud.service.harness import message, running, settings_for
from vedette.v1 import detection_pb2

SLOW = text("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 30000000) SELECT count(*) FROM n")
REQUESTS = 60


async def test_sixty_slow_requests_hold_up_no_device_and_no_end(tmp_path, biopsies, monkeypatch):
    page = api.verdict_page

    async def slow_page(connection, *arguments, **options):
        await connection.execute(SLOW)
        return await page(connection, *arguments, **options)

    monkeypatch.setattr(process, "CONSOLE_READS", dataclasses.replace(CONSOLE_READS, deadline_s=2.0))
    async with running(settings_for(tmp_path), biopsies.key, make_console=_make_console) as cloud:
        await cloud.service.registry.publish(biopsies.bundle)
        bundle_id = biopsies.bundle.manifest.bundle_id
        device = await cloud.device()
        await device.submit([message(biopsies.normal[0], bundle_id=bundle_id)])
        await device.verdicts(1)  # the analysis is loaded
        monkeypatch.setattr(api, "verdict_page", slow_page)
        url = cloud.service.addresses.console_url
        cookies = (await sign_in(cloud.service.store)).cookies
        async with httpx.AsyncClient(base_url=url, timeout=30, cookies=cookies) as client:
            asked = [asyncio.create_task(client.get("api/verdicts")) for _ in range(REQUESTS)]
            await asyncio.sleep(0.3)
            sent = [message(values, bundle_id=bundle_id) for values in biopsies.normal[1:4]]
            started_s = time.monotonic()
            results = await device.submit(sent)
            assert {result.status for result in results} == {detection_pb2.SUBMIT_STATUS_ACCEPTED}
            assert {sample.sample_id for sample in sent} <= set(await device.verdicts(4))
            assert time.monotonic() - started_s < 3
            answers = await asyncio.gather(*asked)
            assert {answer.status_code for answer in answers} <= {200, 503}
            refused = [answer for answer in answers if answer.status_code == 503]
            assert refused
            assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
            asked = [asyncio.create_task(client.get("api/verdicts")) for _ in range(REQUESTS)]
            await asyncio.sleep(0.3)
            started_s = time.monotonic()
            await cloud.service.stop()
            assert time.monotonic() - started_s < 5
            await asyncio.gather(*asked, return_exceptions=True)
    assert not cloud.service.failed.done()


async def test_the_event_feed_outlives_a_failed_query(cloud, device, biopsies, monkeypatch):
    failures = iter([RuntimeError("the driver failed")])
    newest_cursor = event_notifier.newest_cursor

    async def fail_once(store):
        for error in failures:
            raise error
        return await newest_cursor(store)

    monkeypatch.setattr(event_notifier, "newest_cursor", fail_once)
    await asyncio.sleep(2 * event_notifier.POLL_S)
    assert next(failures, None) is None
    await device.submit([message(biopsies.normal[0], bundle_id=biopsies.bundle.manifest.bundle_id)])
    assert len(await device.verdicts(1)) == 1
    assert not cloud.service.failed.done()
