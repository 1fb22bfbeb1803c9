"""Shared options of the benchmarks: wrong ones end before the work, and the command line repeats a run."""

import json
from pathlib import Path

import pytest

from cloud.evaluation.command_options import command_line
from shared.errors import DataError, SettingsError

ON_DATA = ("adbench", "series", "images", "video", "labels", "drift", "repeats")


@pytest.mark.parametrize("benchmark", ON_DATA)
def test_missing_data_ends_before_the_work_and_is_in_the_json(benchmark: str, tmp_path: Path, vedette) -> None:
    result = tmp_path / "out.json"
    assert vedette("bench", benchmark, "--json", result) == SettingsError.exit_code
    expected = "No data folder: give the folder of the data sets with --data."
    assert json.loads(result.read_text())["error"] == expected
    assert vedette("bench", benchmark, "--data", tmp_path / "absent", "--json", result) == DataError.exit_code
    assert json.loads(result.read_text())["error"].startswith(f"{tmp_path / 'absent'}: no ")


@pytest.mark.parametrize("benchmark", [*ON_DATA, "audit", "edge"])
def test_a_page_that_cannot_be_written_ends_before_the_work(benchmark: str, tmp_path: Path, vedette) -> None:
    result = tmp_path / "out.json"
    options = ("--output", "/proc/page.md", "--json", result)
    assert vedette("bench", benchmark, *options) == SettingsError.exit_code
    error = json.loads(result.read_text())["error"]
    assert error.startswith("/proc/page.md: cannot be written (")
    assert error.endswith("Give --output another path.")


def test_a_work_folder_that_cannot_be_written_ends_before_the_work(tmp_path: Path, vedette, capsys) -> None:
    for benchmark in ("adbench", "drift"):
        assert vedette("bench", benchmark, "--data", tmp_path, "--work", "/proc/work") == SettingsError.exit_code
        assert "Give --work another folder." in " ".join(capsys.readouterr().err.split())


def test_a_peer_that_is_no_program_ends_before_the_work(tmp_path: Path, vedette, monkeypatch, capsys) -> None:
    monkeypatch.delattr("cloud.evaluation.device.benchmark.generated_workload")
    assert vedette("bench", "edge", "--peer-python", tmp_path / "nowhere") == SettingsError.exit_code
    assert "Give the Python of the peer with --peer-python." in " ".join(capsys.readouterr().err.split())


def test_the_audit_benchmark_reads_its_tables_before_it_simulates(tmp_path: Path, vedette, monkeypatch) -> None:
    monkeypatch.delattr("cloud.evaluation.audits.benchmark.coverage")
    assert vedette("bench", "audit", "--data", tmp_path / "absent") == DataError.exit_code


def test_a_command_line_repeats_a_run_without_paths(tmp_path: Path) -> None:
    found = command_line(
        "edge", tmp_path / "edge.md", bundle=tmp_path / "my pump.vedette", data="DATA", quick=True, seed=0, seconds=4.0,
        config=None, datasets="", peer_python=None, slow=False,
    )  # fmt: skip
    expected = "vedette bench edge --bundle 'my pump.vedette' --data DATA --quick --seed 0 --seconds 4"
    assert found == f"{expected} --output docs/benchmarks/edge.md"
