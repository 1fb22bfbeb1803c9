"""Benchmark of the bound on missed anomalies: its bound covers, that of one look does not, and limits hold."""

import json

import numpy as np
import pytest

from cloud.evaluation.audits.benchmark import AuditBenchmarkOptions, run_audit_benchmark
from cloud.evaluation.audits.page import audit_page, show_audits
from cloud.evaluation.audits.populations import drawn_population, population


def test_a_run_shows_coverage_width_and_upload(capsys: pytest.CaptureFixture[str]) -> None:
    options = AuditBenchmarkOptions(runs=80, audits=5000, data=None, seed=1, command="vedette bench audit")
    result = json.loads(json.dumps(run_audit_benchmark(options, lambda *_: None), allow_nan=False))
    covered = result["coverage"]
    assert min(covered["odds mixture (used)"].values()) >= 0.9
    assert covered["Clopper-Pearson, for one look"]["constant"] < 0.9
    assert 1.0 < result["width"]["odds mixture (used)"]["1000"] < 1.6
    by_audits = result["upload"]["drawn"]["by_audits"]
    assert by_audits["300000"]["holds_at_all_times"] >= 0.9
    ratios = [by_audits[audits]["upload_ratio_median"] for audits in ("30000", "300000")]
    assert 1.0 <= ratios[1] < ratios[0]
    page = audit_page(result)
    assert "`vedette bench audit` simulates 80 deployments" in page
    assert "| 300,000 |" in page
    assert "A ratio of 1.2 is not met with 300,000 audits." in page
    show_audits(result)
    assert "Deployments whose bound holds at all times" in capsys.readouterr().out


def test_the_least_upload_is_that_of_the_smallest_threshold_that_holds() -> None:
    normal, anomalies = np.linspace(0.01, 1, 99), np.array([0.001, 0.2, 0.6])
    found = population("a", normal, anomalies, 0.03, np.arange(102) >= 99)
    assert found.miss_rates()[-1] == pytest.approx(0.03)
    assert found.least_upload(0.03) == pytest.approx(0.0, abs=1e-9)
    upload = found.least_upload(0.0205)
    assert upload is not None
    assert 0.0099 < upload < 0.011  # the anomaly with 0.001 alone
    assert found.least_upload(0.0) == pytest.approx(0.03 + 0.97 * 60 / 99, abs=0.02)


def test_a_drawn_population_sums_to_one() -> None:
    cells = drawn_population(np.random.default_rng(3)).cells()
    assert cells.sum() == pytest.approx(1.0)
    assert 0.01 < cells[:, 1].sum() < 0.05
