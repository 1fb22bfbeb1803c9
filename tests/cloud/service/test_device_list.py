"""`vedette cloud devices` on a store as a running fleet would leave it."""

import asyncio
import json
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cloud.service.data_dir import service_lock
from cloud.store.fleet import store_heartbeat
from shared import cli
from shared.bundle import sign
from shared.signing_keys import public_pem
from shared.status import Heartbeat, HeartbeatCounters, RunningBundle
from tests.cloud.console.filled_store import CAMERA, KEY, SHUTTLE, Fleet, manifest, open_store

WARNING = "source radiator: 283 of 283 windows are alarms"
NEVER_SEEN = "press-7"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two devices that reported, one of them with a clock and a bundle that are off, and one that never did."""

    async def fill() -> None:
        store, registry = open_store(tmp_path / "data")
        async with store:
            fleet = Fleet(store, registry)
            await fleet.enrol()
            wanted = sign(manifest(SHUTTLE, version=2), {"edge/note.json": b"2"}, KEY)
            fleet.bundle_ids["shuttle-2"] = (await registry.publish(wanted)).bundle_id
            running = (
                RunningBundle(source_id="radiator", bundle_name="shuttle", bundle_id=fleet.bundle_ids["shuttle"]),
            )
            counters = HeartbeatCounters(samples_screened=1000, samples_forwarded=20, samples_audited=11)
            beat = Heartbeat(counters=counters, running=running, warnings=(WARNING,))
            await store_heartbeat(store, SHUTTLE.device_id, beat, clock_offset_s=172_800.0)

    asyncio.run(fill())
    (tmp_path / "key.pem").write_bytes(public_pem(KEY.public_key()))
    path = tmp_path / "cloud.toml"
    path.write_text(f'data_dir = "{tmp_path}/data"\nbundle_key = "{tmp_path}/key.pem"\n')
    return path


def listed(config: Path, *options: str) -> Result:
    return CliRunner().invoke(cli.build("cloud").root, ["cloud", "devices", "--config", str(config), *options])


def row_of(text: str, device_id: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if f"│ {device_id} " in line]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_a_pipe_gets_one_line_for_each_source(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    text = listed(config).stdout
    device, site, group, health, source, bundle, wanted, sent, contact, clock, certificate = row_of(
        text, SHUTTLE.device_id
    )
    assert (site, group) == ("default", "default")
    assert (device, health, source) == (SHUTTLE.device_id, "warning", "radiator")
    assert bundle.startswith("shuttle-1-")
    assert wanted.startswith("shuttle-2-")
    assert sent == "3.1 %"  # 20 forwarded and 11 audited of 1000
    assert contact.endswith(" ago")
    assert clock == "2 days ahead of the service"
    assert certificate.endswith(" left")
    assert f"{SHUTTLE.device_id}: {WARNING}" in text
    assert row_of(text, CAMERA.device_id)[6] == row_of(text, CAMERA.device_id)[9] == ""
    assert row_of(text, NEVER_SEEN)[3:5] == ["never seen", ""]
    assert f"{NEVER_SEEN}: Enrolled, but no heartbeat yet" in text


def test_eighty_columns_cut_no_name(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = listed(config).stdout
    assert "…" not in text
    for name in (SHUTTLE.device_id, "shuttle-2-", WARNING, "2 days ahead of the service"):
        assert name in text
    assert all(len(line) <= 80 for line in text.splitlines() if line[:1] in "┏┃┡│└")


def test_json_holds_numbers(config: Path, tmp_path: Path) -> None:
    result = tmp_path / "devices.json"
    assert listed(config, "--json", str(result)).exit_code == 0
    found: dict[str, Any] = json.loads(result.read_text())
    device = {each["device_id"]: each for each in found["devices"]}[SHUTTLE.device_id]
    assert abs(found["now_s"] - time.time()) < 60
    assert found["service_runs"] is False
    figures = device["figures"]
    assert (figures["samples_forwarded"], figures["samples_audited"]) == (20, 11)
    assert figures["sent_share"] == pytest.approx(0.031)
    assert device["clock_offset_s"] == 172_800.0
    assert device["running"][0]["wanted_bundle_id"].startswith("shuttle-2-")
    assert device["warnings"] == [WARNING]


def test_a_list_without_a_service_says_so(config: Path) -> None:
    data_dir = Path(tomllib.loads(config.read_text())["data_dir"])
    assert listed(config).stdout.startswith("The service does not run: these are the last heartbeats.")
    with service_lock(data_dir):
        assert "does not run" not in listed(config).stdout


def test_a_failure_is_in_the_json_file_too(config: Path, tmp_path: Path) -> None:
    result = tmp_path / "devices.json"
    assert listed(config, "--revoke", "nobody", "--json", str(result)).exit_code != 0
    assert json.loads(result.read_text())["exit_code"] == 3
