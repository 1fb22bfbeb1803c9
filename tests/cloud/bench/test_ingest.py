"""Small runs of the benchmark of ingest, and the requests that it sends."""

import json

import pytest
from typer.testing import CliRunner

from cloud.bench.workloads import WORKLOADS
from cloud.service.bundle_rules import BundleRule
from shared import cli
from tests.cloud.service.harness import check_samples


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_the_service_accepts_the_requests_of_each_workload(workload):
    request = workload.request("bench-1-00000000", seed=1)
    rules = {"bench-1-00000000": BundleRule(workload.modality, workload.spec)}
    assert check_samples(request.samples, rules) == {}


@pytest.mark.long
def test_a_tiny_run_measures_both_sides(tmp_path):
    path = tmp_path / "ingest.json"
    options = ["--seconds", "0.2", "--rounds", "1", "--clients", "2", "--samples", "8 rows"]
    answer = CliRunner().invoke(cli.build().root, ["bench", "cloud", "ingest", *options, "--json", str(path)])
    assert answer.exit_code == 0, answer.output
    summary = json.loads(path.read_text())
    figure = summary["figures"]["8 rows"]
    assert all(figure[side]["requests_a_second"] > 0 for side in ("echo", "service"))
    assert summary["requirements"][0]["required"] == 0.7
