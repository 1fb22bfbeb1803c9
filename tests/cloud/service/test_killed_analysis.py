"""A service whose analysis process is killed again and again under load, and then the service itself."""

import asyncio
import os
import signal

import pytest

from cloud.service.tokens import new_tokens
from cloud.settings import CloudSettings
from cloud.store import open_store
from cloud.store.judging import backlog
from cloud.store.registry import publish_to
from tests.cloud.service.harness import enrol
from tests.cloud.service.served import Served, write_settings
from tests.cloud.service.test_killed_roles import SendingDevice, free_ports

DEVICES, KILLS = 4, 4
LOAD_S = 3.0  # before each kill
DRAIN_S = 120.0


async def new_child(served: Served, old: int) -> int:
    """The process that judges now, once it is not the old one."""
    async with asyncio.timeout(60):
        while True:
            children = await asyncio.to_thread(lambda: served.analysis_pids)
            if children and children != [old]:
                return children[0]
            await asyncio.sleep(0.1)


@pytest.mark.long
@pytest.mark.system
@pytest.mark.timeout(600)
@pytest.mark.parametrize("has_postgres", [False, True])
async def test_kills_of_analysis_and_service_under_load_lose_no_sample_and_judge_none_twice(
    tmp_path, biopsies, request, has_postgres
):
    device_port, enrolment_port = free_ports(2)
    ports = {"listen": f"127.0.0.1:{device_port}", "enrolment_listen": f"127.0.0.1:{enrolment_port}"}
    url = {"store_url": request.getfixturevalue("postgres_url")} if has_postgres else {}
    config = write_settings(tmp_path, biopsies.key, **ports, **url)
    settings = CloudSettings.load(config, {})
    devices, tasks, pid = [], [], 0
    for _ in range(2):  # the second time after the service was killed
        async with Served(config) as served:
            if not devices:
                await publish_to(settings.store, biopsies.bundle, biopsies.key.public_key())
                tokens = await new_tokens(settings, {f"press-{number}": f"s{number}" for number in range(DEVICES)}, 600)
                for token in tokens.values():
                    client = await enrol(token)
                    client.bundle_id = biopsies.bundle.manifest.bundle_id
                    devices.append(SendingDevice(client, [ports["listen"]], biopsies.normal))
                watching = [asyncio.create_task(device.watch()) for device in devices]
                tasks = [asyncio.create_task(device.send()) for device in devices]
            for _ in range(KILLS):
                pid = await new_child(served, pid)
                await asyncio.sleep(LOAD_S)
                os.kill(pid, signal.SIGKILL)
            pid = await new_child(served, pid)
            await asyncio.sleep(LOAD_S)
    for device in devices:
        device.ended = True
    async with Served(config):
        await asyncio.gather(*tasks)
        async with asyncio.timeout(DRAIN_S):
            while any(device.acknowledged - device.verdicts.keys() for device in devices):
                await asyncio.sleep(0.5)
        async with open_store(settings.store) as store:
            assert (await backlog(store)).total == 0
    for device in devices:
        assert set(device.verdicts) >= device.acknowledged
        assert len(device.acknowledged) > 100
        assert set(device.verdicts.values()) == {1}, "one verdict a sample, each seen once"
    for task in watching:
        task.cancel()
