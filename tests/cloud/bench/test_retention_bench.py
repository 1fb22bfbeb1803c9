"""Benchmark of retention beside ingest."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloud.bench import retention
from shared import cli


def test_old_rows_are_deleted_beside_ingest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "IDLE_S", 0.1)
    path = tmp_path / "retention.json"
    options = ["--rows", "300", "--payload-bytes", "100", "--json", str(path)]
    answer = CliRunner().invoke(cli.build().root, ["bench", "cloud", "retention", *options])
    assert answer.exit_code == 0, answer.output
    figures = json.loads(path.read_text())["figures"]
    removed = figures["removed"]  # of 330; verdicts are up to 1.2 s younger than samples, which are 1 s apart
    assert 295 <= removed["payloads"] == removed["verdicts"] < 330
    assert all(figures[key]["longest_ms"] > 0 for key in ("alone", "beside_retention"))
