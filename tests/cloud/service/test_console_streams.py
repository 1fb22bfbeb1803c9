"""Streams of open pages when the service stops."""

import asyncio
import logging
import time
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.service.main import _make_console
from tests.accounts import sign_in
from tests.cloud.service.harness import running, settings_for


async def test_an_open_stream_ends_with_the_service_and_holds_up_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = Ed25519PrivateKey.generate()
    async with running(settings_for(tmp_path), key, make_console=_make_console) as cloud:
        browser = await sign_in(cloud.service.store)
        url = cloud.service.addresses.console_url
        async with (
            httpx.AsyncClient(base_url=url, timeout=30) as client,
            client.stream("GET", "/live", headers={"Cookie": browser.headers["Cookie"]}) as stream,
        ):
            lines = stream.aiter_lines()
            assert await anext(lines) == "retry: 1000"
            started_s = time.monotonic()
            stopping = asyncio.create_task(cloud.service.stop())
            assert [line async for line in lines][-1] == ""  # to its end
            await stopping
            assert time.monotonic() - started_s < 3
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
