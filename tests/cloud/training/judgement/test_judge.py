"""The judgement of complete training runs."""

from typing import Any

import pytest

from tests.cloud.training.conftest import Trained


@pytest.mark.parametrize("name", ["tabular", "series", "image"])
def test_a_bundle_holds_its_judgement(name: str, request: pytest.FixtureRequest) -> None:
    trained: Trained = request.getfixturevalue(name)
    training = trained.bundle.manifest.training
    judgement: dict[str, Any] = training["judgement"]
    text = " ".join(judgement["sentences"])
    assert f"{training['held_out_samples']:,} held-out" in text
    assert "corrupted copies" in text
    assert "forward about" in text
    figures = judgement["figures"]
    assert all(kind["fused"] <= kind["judged_anomalous"] <= kind["copies"] for kind in figures["corruptions"].values())
    assert ("judging", 0.0) in trained.stages


def test_obvious_corruptions_are_found_and_a_periodic_series_does_not_drift(series: Trained) -> None:
    judgement = series.bundle.manifest.training["judgement"]
    for name in ("stuck channel", "level shift", "spike"):
        kind = judgement["figures"]["corruptions"][name]
        assert kind["screener"] > 0.8 * kind["copies"]
        assert kind["fused"] > 0.8 * kind["copies"]
    assert "they overlap" in judgement["sentences"][0]
    assert not any("drifts" in warning for warning in judgement["warnings"])
