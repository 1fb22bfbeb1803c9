"""A small run of the benchmark of replicas."""

import json

import pytest
from typer.testing import CliRunner

from shared import cli
from tests.cloud.serving.replicas.clusters import needs_ray


@pytest.mark.long
@needs_ray
def test_a_tiny_run_compares_replicas_with_one_process(tmp_path):
    path = tmp_path / "replicas.json"
    command = ["bench", "cloud", "replicas", "--rounds", "1", "--share", "0.02", "--json", str(path)]
    answer = CliRunner().invoke(cli.build().root, command)
    assert answer.exit_code == 0, answer.output
    figures = json.loads(path.read_text())["figures"]
    assert set(figures) == {"rows", "images"}
    for figure in figures.values():
        assert figure["samples_a_second"].keys() == {"in_process", "replicas_1", "replicas_2"}
        assert min(figure["samples_a_second"].values()) > 0
        assert figure["single_call_ms"]["replicas_1"] > figure["single_call_ms"]["in_process"]
