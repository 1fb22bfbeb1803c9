"""Benchmark of the review page."""

import json
from pathlib import Path

from typer.testing import CliRunner

from shared import cli
from tests.cloud.console.conftest import CHROMIUM


def test_every_page_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "console.json"
    options = ["--verdicts", "2000", "--repeats", "1", "--json", str(path)]
    answer = CliRunner().invoke(cli.build().root, ["bench", "console", *options])
    assert answer.exit_code == 0, answer.output
    summary = json.loads(path.read_text())
    assert summary["items"] == 40
    assert {"inbox", "device", "next item", "decision"} < set(summary["figures"])
    if CHROMIUM:
        assert summary["figures"]["next item in Chromium"]["median_ms"] > 1, "the time of a frame"
    else:
        assert "apt-get install chromium" in answer.output
    assert all(times["median_ms"] > 0 for times in summary["figures"].values())
    assert "Review, SQLite" in answer.output
