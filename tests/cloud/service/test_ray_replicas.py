"""A service whose analysis runs in replicas on a Ray cluster of this machine."""

import asyncio
import contextlib
import importlib
import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

from cloud.serving.analysis import load_analysis
from cloud.settings import CloudSettings
from shared.errors import MissingExtraError, SettingsError
from tests.cloud.service.harness import message, running, settings_for
from tests.cloud.serving.replicas.clusters import (
    family,
    needs_ray,
    ray_settings,
    replica_processes,
    running_replicas,
)


def service_settings(folder, **ray):
    return settings_for(folder, analysis=ray_settings(**ray).model_dump(), notices={"check_every_s": 3600})


async def submit(device, biopsies, count):
    """Submit samples; return their values by id."""
    values = np.concatenate([biopsies.normal, biopsies.anomalous])
    messages = [message(values[index % len(values)]) for index in range(count)]
    await device.submit(messages)
    return {each.sample_id: values[index % len(values)] for index, each in enumerate(messages)}


async def submit_for_a_while(device, biopsies):
    sent = {}
    for _ in range(20):
        sent |= await submit(device, biopsies, 300)
        await asyncio.sleep(0.1)
    return sent


def is_computing(process):
    """Whether a thread of the process runs at this moment."""
    stats = Path(f"/proc/{process.pid}/task").glob("*/stat")
    return any(each.read_text().rpartition(")")[2].split()[0] == "R" for each in stats)


def assert_judged(biopsies, sent, verdicts):
    """Each sample has one verdict, and it is the one that this process gives."""
    assert verdicts.keys() == sent.keys()
    here = load_analysis(biopsies.bundle, "cpu", 0.01).judge(list(sent.values()))
    for sample_id, expected in zip(sent, here, strict=True):
        verdict = verdicts[sample_id]
        assert np.isclose(verdict.p_value, expected.p_value, rtol=1e-4)
        assert (verdict.decision == 2) == (expected.p_value <= 0.01)


@pytest.mark.long
@needs_ray
async def test_killed_replicas_and_a_killed_front_lose_no_sample(tmp_path, biopsies):
    before = {each.pid for each in family()}
    async with running(service_settings(tmp_path), biopsies.key) as cloud:
        assert cloud.service.readiness()["status"] == "not ready"
        assert "starting" in cloud.service.readiness()["analysis"]
        await cloud.service.registry.publish(biopsies.bundle)
        device = await cloud.device()
        sent = await submit(device, biopsies, 50)  # they wait until the replicas run
        replicas = cloud.service._analysis._replicas
        await running_replicas(replicas, 2)
        assert cloud.service.readiness()["status"] == "ready"
        assert not listening_beyond_loopback()

        load = asyncio.create_task(submit_for_a_while(device, biopsies))
        await device.verdicts(500)
        victim = replica_processes()[0]
        async with asyncio.timeout(30):
            while not is_computing(victim):
                await asyncio.sleep(0)
        os.kill(victim.pid, signal.SIGKILL)
        sent |= await load
        assert_judged(biopsies, sent, await device.verdicts(len(sent), timeout_s=90))
        await running_replicas(replicas, 2)
        assert victim.pid not in {each.pid for each in replica_processes()}

        os.kill(replicas._child.pid, signal.SIGKILL)
        sent |= await submit(device, biopsies, 300)
        await asyncio.sleep(2)
        assert cloud.service.readiness()["status"] == "not ready"
        assert_judged(biopsies, sent, await device.verdicts(len(sent), timeout_s=120))
    # Ray's workers end by themselves when their cluster has ended.
    _, left = await asyncio.to_thread(psutil.wait_procs, [each for each in family() if each.pid not in before], 20)
    assert not left


def listening_beyond_loopback():
    """Addresses on which a process below this one listens."""
    found = []
    for each in family():
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [
                (each.name(), connection.laddr)
                for connection in each.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN and not connection.laddr.ip.endswith(("127.0.0.1", "::1"))
            ]
    return found


@needs_ray
async def test_samples_wait_while_the_cluster_cannot_be_reached(tmp_path, biopsies):
    async with running(service_settings(tmp_path, address="127.0.0.1:1"), biopsies.key) as cloud:
        await cloud.service.registry.publish(biopsies.bundle)
        device = await cloud.device()
        await submit(device, biopsies, 20)
        async with asyncio.timeout(20):
            while "starting" in cloud.service.readiness()["analysis"]:
                await asyncio.sleep(0.05)
        facts = cloud.service.readiness()
        assert facts["status"] == "not ready"
        assert facts["analysis"].startswith("the Ray cluster at 127.0.0.1:1 cannot be reached")
        assert cloud.service.health()["backlog_samples"] == 20
        assert not await device.verdicts(1, timeout_s=1)


def test_the_extra_is_named_where_ray_is_not_installed(tmp_path, biopsies, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))

    async def serve():
        async with running(service_settings(tmp_path), biopsies.key):
            pass

    with pytest.raises(MissingExtraError, match=r"pip install 'vedette\[scale\]'"):
        asyncio.run(serve())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[analysis.ray]\naddress = "10.0.0.7"', "host:port"),
        ("[analysis.ray]\nmin_replicas = 3", "raise max_replicas"),
        ("[analysis.ray]\ngpus_per_replica = 1.5", "whole number"),
        ('[analysis]\ndevice = "cuda"\n[analysis.ray]\naddress = "local"', "gpus_per_replica"),
    ],
)
def test_settings_of_replicas_are_checked(tmp_path, text, told):
    path = tmp_path / "cloud.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=told):
        CloudSettings.load(path, {})
