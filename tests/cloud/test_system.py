"""Figures of the machine, and quantiles of latencies."""

import asyncio
import stat
from pathlib import Path

import pytest

from cloud.store.system_queries import VerdictTimes
from cloud.system.figures import latency_of, quantile
from cloud.system.machine import Machine, gpu_of, read_gpus


def test_a_line_of_the_driver_gives_a_gpu_and_missing_figures_stay_missing() -> None:
    gpu = gpu_of("NVIDIA H200, 37, 1024, 2048, 41")
    assert (gpu.name, gpu.use_share, gpu.memory_used_bytes, gpu.temperature_c) == ("NVIDIA H200", 0.37, 2**30, 41.0)
    assert gpu_of("Tesla, V, [N/A], 1, 2, [N/A]").use_share is None


@pytest.mark.parametrize(
    ("script", "names"),
    [("echo 'NVIDIA H200, 37, 1, 2, 41'; echo broken", ["NVIDIA H200"]), ("exit 9", []), ("sleep 60", [])],
)
def test_a_driver_that_fails_or_hangs_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, names: list[str]
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script.replace('sleep', 'exec sleep')}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("cloud.system.machine.GPU_S", 0.5)
    assert [gpu.name for gpu in read_gpus()] == names


async def test_the_machine_counts_the_cores_that_this_process_uses(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    await asyncio.to_thread(lambda: sum(range(2_000_000)))
    figures = await machine.figures()
    assert figures.process_cores > 0.01
    assert figures.process_memory_bytes > 10 * 2**20
    assert (await Machine(tmp_path / "missing").figures()).disk_bytes is None


def test_quantiles_are_values_that_were_seen() -> None:
    assert quantile([], 0.5) is None
    assert [quantile([1.0, 2.0, 3.0, 4.0], share) for share in (0.0, 0.5, 0.75, 0.95, 1.0)] == [1, 2, 3, 4, 4]
    times = [VerdictTimes(0.0, 1.0, 1.0 + wait) for wait in range(1, 101)]
    found = latency_of(times)
    assert (found.from_arrival_median_s, found.from_arrival_p95_s, found.from_capture_p95_s) == (50, 95, 96)
