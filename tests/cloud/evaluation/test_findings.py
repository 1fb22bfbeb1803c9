"""Sentences at the end of an evaluation, and their conditions."""

from typing import Any

import pytest

from cloud.evaluation.findings import findings, key_figures

EDGE = "screener_int8_openvino"


def method(auroc: float, alarms: float = 0.05) -> dict[str, float]:
    figures = {"auroc": auroc, "recall_at_1_far": 0.5, "recall_at_5_far": 0.7, "recall_at_p_5": 0.8}
    rates = {"false_alarms_at_5": alarms, "false_alarms_at_5_low": alarms, "false_alarms_at_5_high": alarms}
    return {**figures, **rates, "flagged_at_1": alarms, "flagged_at_5": alarms, "p_lowest": 1e-6}


def result(anomalies: int | None = 100, **methods: dict[str, float]) -> dict[str, Any]:
    own = {"fused": method(0.9), EDGE: method(0.9), **methods}
    if anomalies is None:
        own = {
            name: {key: value for key, value in figures.items() if key.startswith(("flagged", "p_"))}
            for name, figures in own.items()
        }
    return {"edge": EDGE, "samples": 1000, "anomalies": anomalies, "methods": own}


def test_a_good_evaluation_has_three_figures_and_no_findings() -> None:
    good = result(baseline_knn={"auroc": 0.905}, knn=method(0.91))
    assert findings(good, ["knn", "time_estimation"], [], 900) == []
    assert len(key_figures(good)) == 3
    assert key_figures(good)[0] == "AUROC: fused verdict 90.0, device 90.0."


def test_flagged_normals_are_named_with_the_channels_that_differ() -> None:
    flagged = result(**{EDGE: method(0.9, alarms=1.0)})
    found = findings(flagged, [], ["Temperature 79 against 88 to 91"], 900)
    assert found[0].startswith("All normal samples are flagged")
    assert "they differ from the training data (Temperature 79 against 88 to 91)" in found[0]
    some = result(**{EDGE: method(0.9, alarms=0.31)})
    assert findings(some, [], [], 900)[0].startswith("31 % of the normal samples are flagged")


@pytest.mark.parametrize(("normals", "start"), [(None, "All samples"), (1000, "All normal samples"), (0, "")])
def test_without_both_labels_the_flagged_share_is_judged(normals: int | None, start: str) -> None:
    flagged = result(None, **{EDGE: method(0.9, alarms=1.0)})
    found = findings(flagged, [], [], normals)
    assert bool(found) is bool(start)
    assert all(sentence.startswith(start) for sentence in found)
    assert len(key_figures(flagged)) == 3


def test_a_few_flagged_samples_by_chance_are_no_finding() -> None:
    few = {**result(None, **{EDGE: method(0.9, alarms=0.2)}), "samples": 5}
    assert findings(few, [], [], None) == []


def test_a_fusion_below_its_members_and_methods_below_a_baseline_are_named() -> None:
    poor = result(
        fused=method(0.641),
        time_estimation=method(0.832),
        knn=method(0.842),
        channel_imputation=method(0.5),
        baseline_knn={"auroc": 0.95},
    )
    found = findings(poor, ["time_estimation", "channel_imputation", "knn"], [], 900)
    assert (
        "The fused verdict (64.1) and the device's screener (90.0) are below the baseline baseline_knn (95.0)"
        in found[0]
    )
    assert "The fusion (64.1) is below its own members knn 84.2 and time_estimation 83.2 in AUROC" in found[1]
    assert "channel_imputation" in found[1]


@pytest.mark.parametrize(("alarms", "start"), [(0.3, "The fused verdict (64.1)"), (0.6, "60 % of the normal")])
def test_the_largest_difference_comes_first_and_limits_of_the_measurement_last(alarms: float, start: str) -> None:
    poor = result(3, fused=method(0.641), baseline_knn={"auroc": 0.95}, **{EDGE: method(0.95, alarms=alarms)})
    found = findings(poor, [], [], 900)
    assert found[0].startswith(start)
    assert found[-1].startswith("Only 3 anomalies")


def test_too_few_labels_are_said() -> None:
    found = findings(result(1), [], [], 12)
    assert found[0].startswith("Only 1 anomaly is labelled")
    assert "Only 12 normal samples" in found[1]
