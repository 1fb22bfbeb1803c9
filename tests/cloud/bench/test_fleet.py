"""Simulated devices against a real service."""

import asyncio
import io
import json
import time

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cloud.bench.fleet import hostile
from cloud.bench.fleet.honest import HonestFleet
from cloud.bench.fleet.plan import ClientKind, ClientPlan, PlannedDevice
from cloud.bench.fleet.report import show_fleet
from cloud.bench.fleet.requirements import requirements
from cloud.bench.setup import SimulatedDevice
from shared import cli
from shared.errors import SettingsError
from tests.cloud.service.harness import running, settings_for


async def plan_for(cloud, tmp_path, biopsies, kind: ClientKind, devices: int) -> ClientPlan:
    np.save(tmp_path / "rows.npy", biopsies.normal)
    enrolled = [await cloud.device(f"{kind}-{place}") for place in range(devices)]
    planned = [
        PlannedDevice.of(SimulatedDevice(device.device_id, device.key_pem, device.certificate_pem, device.ca_pem))
        for device in enrolled
    ]
    return ClientPlan(
        kind=kind,
        address=enrolled[0].address,
        enrolment_address=cloud.service.addresses.enrolment_address,
        ca_pem=enrolled[0].ca_pem.decode(),
        planned=planned,
        bundle_id=biopsies.bundle.manifest.bundle_id,
        image_side=64,
        rows=tmp_path / "rows.npy",
        rate=10.0,
        seconds=1.5,
        drain_s=20.0,
        seed=1,
        start_file=tmp_path / "start",
        result=tmp_path / "result.json",
    )


async def test_every_sample_of_honest_devices_is_counted_beside_all_attacks(tmp_path, biopsies, monkeypatch):
    small = {"IDLE_CONNECTIONS": 5, "IDLE_S": 0.1, "LARGE_BYTES": 2**20, "LARGE_REQUESTS": 2, "LARGE_EVERY_S": 0.0}
    for name, value in {**small, "ENROLMENTS": 40, "BOMB_VALUES": 2**20}.items():
        monkeypatch.setattr(hostile, name, value)
    async with running(settings_for(tmp_path), biopsies.key) as cloud:
        await cloud.service.registry.publish(biopsies.bundle)
        honest = HonestFleet(await plan_for(cloud, tmp_path, biopsies, ClientKind.HONEST, 2))
        (attacks,) = hostile.hostile_devices(await plan_for(cloud, tmp_path, biopsies, ClientKind.HOSTILE, 1))
        await honest.connect()
        run = asyncio.create_task(honest.run(time.perf_counter()))
        answers = {name: set(await attack()) for name, attack in attacks.by_name().items()}
        await run
        result = await honest.close()
        await attacks.close()
    assert result.produced == result.acknowledged == 2 * 15
    assert result.lost == 0
    assert len(result.acknowledged_ms) == len(result.verdict_ms) == 2 * 15
    assert min(result.verdict_ms) > 0
    assert answers == {
        "large images": {"REJECTED"},  # the only bundle is one of rows
        "compressed bombs": {"REJECTED"},
        "large requests": {"INVALID_ARGUMENT"},
        "idle connections": {"open"},
        "enrolment": {"PERMISSION_DENIED", "RESOURCE_EXHAUSTED"},
        "large heartbeats": {"INVALID_ARGUMENT", "OK"},
        "alternating bundles": {"ACCEPTED", "REJECTED"},
        "wrong shapes": {"REJECTED"},
        "greedy": {"ACCEPTED"},
    }


def figures(p99_ms: float, lost: int = 0) -> dict:
    times = {"p50": 5.0, "p99": p99_ms, "max": 2 * p99_ms}
    return {
        "honest_devices": 5,
        "hostile_devices": 0,
        "samples": 100,
        "samples_a_second": 10.0,
        "not_acknowledged": 0,
        "lost": lost,
        "acknowledged_ms": times,
        "verdict_ms": times,
        "resident_start_mib": 300.0,
        "resident_end_mib": 310.0,
        "resident_peak_mib": 320.0,
        "service_cores": 0.5,
        "client_cores": 0.1,
    }


def test_a_missed_requirement_is_a_sentence_with_the_measurement_and_the_limit():
    phases = {"honest": figures(400.0, lost=3), "with hostile devices": figures(900.0)}
    rows = requirements(phases)
    assert [row["met"] for row in rows] == [False, True, False, True, True, True, True, False, False, True]
    output = io.StringIO()
    machine = {"cores": 2, "load_before": 0.1}
    summary = {"devices": 5, "rate": 2.0, "seconds": 50.0, "machine": machine, "figures": phases, "requirements": rows}
    show_fleet(summary, Console(file=output, width=120))
    lines = output.getvalue().splitlines()
    assert "Missed, honest: acknowledged samples without a verdict is 3; at most 0 is required." in lines
    assert "Missed, honest: p99 to the acknowledgement is 400 ms; at most 250 ms is required." in lines


@pytest.mark.long
def test_a_tiny_run_loses_nothing(tmp_path):
    path = tmp_path / "fleet.json"
    options = ["--devices", "5", "--minutes", "0.05", "--hostile", "0.2", "--attacks", "greedy", "--json", str(path)]
    answer = CliRunner().invoke(cli.build().root, ["bench", "cloud", "fleet", *options])
    assert answer.exit_code == 0, answer.output
    summary = json.loads(path.read_text())
    for phase in summary["figures"].values():
        assert phase["lost"] == phase["not_acknowledged"] == 0
        assert phase["samples"] == 6 * phase["honest_devices"]
        assert phase["service_cores"] > 0
    assert summary["command"].endswith("--hostile 0.2 --attacks greedy")
    answers = summary["figures"]["with hostile devices"]["answers_to_hostile"]
    assert "greedy: ACCEPTED" in answers
    assert {answer.partition(":")[0] for answer in answers} == {"greedy"}


def test_an_unknown_attack_is_refused_before_the_run():
    answer = CliRunner().invoke(cli.build().root, ["bench", "cloud", "fleet", "--hostile", "0.2", "--attacks", "greed"])
    assert isinstance(answer.exception, SettingsError)
    assert "there is no attack 'greed'; there are large images, compressed bombs" in str(answer.exception)
