"""A service that is killed in the middle of a training goes on with it after its restart."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud.settings import CloudSettings
from cloud.store import open_store
from cloud.store.api_tokens import Scope, add_api_token, token_text
from shared.signing_keys import new_signing_key
from tests.cloud.jobs.conftest import press_rows
from tests.cloud.service.served import Served, write_settings

pytestmark = pytest.mark.long


@contextlib.asynccontextmanager
async def client_of(service: Served) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {token_text('abc', 'secret')}"}
    url = f"{service.facts['console_url']}api/v1/training"
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120) as client:
        yield client


async def job_of(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"/jobs/{job_id}")).json()
    return found


def pids_of(job_id: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"{job_id}/attempt".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


async def until_stage(client: httpx.AsyncClient, job_id: str, stage: str, attempts: int) -> None:
    async with asyncio.timeout(180):
        while (job := await job_of(client, job_id))["stage"] != stage or job["attempts"] != attempts:
            assert job["state"] in ("queued", "running"), job
            await asyncio.sleep(0.2)


async def test_a_job_survives_kill_9_of_its_service_and_of_its_own_process(tmp_path: Path) -> None:
    key = new_signing_key(tmp_path / "signing.pem")
    config = write_settings(tmp_path, key)
    with config.open("a") as file:
        file.write(f'[training]\nsigning_key = "{tmp_path / "signing.pem"}"\nfree_bytes = 0\n')
    async with Served(config) as service:
        async with open_store(CloudSettings.load(config, {}).store) as store:
            await add_api_token(store, "abc", "secret", name="CI", scopes=list(Scope), expires_at_s=9e9)
        async with client_of(service) as client:
            upload = (await client.post("/uploads")).json()["upload_id"]
            await client.put(f"/uploads/{upload}/files/press.csv", content=press_rows())
            assert (await client.post(f"/uploads/{upload}/inspection")).json()["inspection"]["problem"] == ""
            body = {"data": {"upload_id": upload}, "options": {"name": "press", "effort": "first-look"}}
            job_id = (await client.post("/jobs", json=body)).json()["job_id"]
            await until_stage(client, job_id, "fitting the analyzers", 1)
        (pid,) = pids_of(job_id)
        service.process.send_signal(signal.SIGKILL)
        service.process.wait()
        async with asyncio.timeout(5):
            while Path(f"/proc/{pid}").exists():  # the kernel ends it with the service
                await asyncio.sleep(0.05)
    async with Served(config) as service, client_of(service) as client:
        await until_stage(client, job_id, "fitting the analyzers", 2)
        os.kill(pids_of(job_id)[0], signal.SIGKILL)
        async with asyncio.timeout(240):
            while (job := await job_of(client, job_id))["state"] in ("queued", "running"):
                await asyncio.sleep(0.5)
    assert (job["state"], job["attempts"]) == ("done", 3), job["reason"]
    assert job["result"]["bundle_id"].startswith("press-1-")
    assert [line["text"] for line in job["log"]].count("attempt 3 of 3 begins") == 1
