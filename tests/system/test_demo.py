"""`vedette demo` from beginning to end, as a user starts it, and its end by Ctrl-C."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from cloud.store import open_store
from cloud.store.registry import Registry
from shared.bundle import Bundle
from shared.home import trusted_key
from shared.modalities import preprocessing_id

pytestmark = pytest.mark.system

VEDETTE = str(Path(sys.executable).with_name("vedette"))
DEVICE_KEYS = {
    "samples_screened",
    "samples_forwarded",
    "samples_audited",
    "bytes_screened",
    "bytes_uploaded",
    "upload_ratio",
    "verdicts",
    "samples_lost",
    "edge_auroc",
    "fused_auroc",
    "cascade_recall",
    "false_alarm_rate",
    "screen_latency_ms",
    "sample_to_verdict_ms",
}


# Settings of training from the environment: the camera's bundle takes two thirds of the processor time.
SMALL_IMAGES = {
    "VEDETTE_IMAGE__HEIGHT": "64",
    "VEDETTE_IMAGE__WIDTH": "64",
    "VEDETTE_IMAGE__PATCHES": "3000",
    "VEDETTE_QUANTISATION__IMAGES": "20",
}


async def published_bundle(data_dir: Path, bundle_id: str) -> Bundle:
    async with open_store(data_dir) as store:
        return await Registry(store, data_dir, trusted_key()).bundle(bundle_id)


def federated_status(config: Path) -> str:
    command = [VEDETTE, "federated", "status", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("effort", ["0.03", pytest.param("", marks=pytest.mark.long, id="default effort")])
def test_the_demo_loses_nothing_and_ends_with_a_new_bundle_on_the_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, effort: str
) -> None:
    result, folder = tmp_path / "out.json", tmp_path / "demo"
    demo = subprocess.run(
        [VEDETTE, "demo", "--headless", "--seconds", "25", "--json", str(result), "--folder", str(folder)]
        + (["--effort", effort] if effort else []),
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, **(SMALL_IMAGES if effort else {})},
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert re.search(r"signed in as demo: http://127\.0\.0\.1:\d+/link/[\w-]{43}", "".join(demo.stdout.splitlines()))
    summary = json.loads(result.read_text())
    assert set(summary) == {"devices", "total", "federated_round", "seconds", "versions"}
    assert 0 < summary["seconds"]["training"] < summary["seconds"]["until_all_devices_screen"]
    assert_every_sample_is_accounted_for(summary)
    assert "is cut" in demo.stdout
    assert "is restored" in demo.stdout

    federated = summary["federated_round"]
    assert federated["status"] == "completed"
    assert federated["clients"] == 2
    assert federated["bundle_before"] != federated["bundle_after"] == summary["devices"]["shuttle-a"]["bundle"]
    details = json.loads((folder / "round.json").read_text())["details"]
    assert all(client["num-examples"] > 100 for client in details[0]["clients"].values())
    monkeypatch.setenv("VEDETTE_HOME", str(folder / "home"))
    before = asyncio.run(published_bundle(folder / "cloud", federated["bundle_before"]))
    after = asyncio.run(published_bundle(folder / "cloud", federated["bundle_after"]))
    assert after.manifest.version == before.manifest.version + 1
    assert after.manifest.parent_bundle_id == before.manifest.bundle_id
    assert preprocessing_id(after.manifest) == preprocessing_id(before.manifest)
    assert after.read("cloud/head.safetensors") != before.read("cloud/head.safetensors")
    assert "1 rounds done" in federated_status(folder / "cloud.toml")
    assert not (folder / "cloud" / "federation" / "server.json").exists()


def assert_every_sample_is_accounted_for(summary: dict[str, Any]) -> None:
    assert set(summary["devices"]) == {"shuttle-a", "shuttle-b", "artery", "camera"}
    for name, device in [*summary["devices"].items(), ("total", summary["total"])]:
        assert device.keys() >= DEVICE_KEYS, name
        assert device["samples_lost"] == 0, name
        assert device["verdicts"] == device["samples_forwarded"] + device["samples_audited"], name
        assert 0 < device["upload_ratio"] <= 0.2, name
    for name in ("shuttle-a", "shuttle-b"):
        assert summary["devices"][name]["fused_auroc"] >= 0.95


def test_ctrl_c_ends_every_process_it_started_within_five_seconds(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [VEDETTE, "demo", "--headless", "--seconds", "40", "--folder", str(tmp_path / "demo")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline_s = time.monotonic() + 60
        while not (children := psutil.Process(demo.pid).children(recursive=True)) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        assert children, "the demo started nothing"
        os.kill(demo.pid, signal.SIGINT)
        demo.wait(timeout=5)
        _, alive = psutil.wait_procs(children, timeout=0.5)
        # One that has ended and waits to be collected by the system's first process is no longer running.
        assert not [child for child in alive if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        assert demo.returncode == 130
    finally:
        if demo.poll() is None:
            demo.kill()
        demo.communicate()


def test_a_folder_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("")
    demo = subprocess.run(
        [VEDETTE, "demo", "--headless", "--folder", str(tmp_path / "full")], capture_output=True, text=True, timeout=60
    )
    assert demo.returncode == 3
    assert demo.stderr.count("\n") == 1
    assert "not empty" in demo.stderr
