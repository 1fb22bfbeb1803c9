"""A small run of the benchmark of the analysis."""

import json

import pytest
from typer.testing import CliRunner

from shared import cli


@pytest.mark.long
def test_a_tiny_run_compares_the_batcher_with_the_networks(tmp_path):
    path = tmp_path / "analysis.json"
    command = ["bench", "cloud", "analysis", "--rounds", "1", "--share", "0.02", "--json", str(path)]
    answer = CliRunner().invoke(cli.build().root, command)
    assert answer.exit_code == 0, answer.output
    summary = json.loads(path.read_text())
    assert set(summary["figures"]) == {"rows", "images"}
    assert all(figure["service_samples_a_second"] > 0 for figure in summary["figures"].values())
    assert [row["required"] for row in summary["requirements"]] == [0.95, 0.95]
