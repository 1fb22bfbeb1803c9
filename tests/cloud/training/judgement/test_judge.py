"""The judgement of complete training runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cloud.training import TrainingSettings, load_training_data
from cloud.training.judgement.judge import sample_rate
from cloud.training.modalities import split_samples
from cloud.training.settings import JudgementSettings
from shared.modality import Modality
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


@pytest.mark.parametrize(
    ("times", "per_day", "named"),
    [
        (pd.date_range("2026-03-01", periods=600, freq="2500ms").astype(str), 8640, "'timestamp' (2.5 s)"),
        (1_772_323_200_000 + 2500 * np.arange(600), 8640, "'timestamp' (2.5 s)"),
        (pd.date_range("2026-03-01", periods=600, freq="100ms").floor("s").astype(str), 216_000, "(0.0985 s)"),
        (np.arange(600), 1440, ""),
    ],
    ids=["texts", "milliseconds", "repeated", "without unit"],
)
def test_the_rate_of_a_series_is_that_of_its_times_unless_it_is_set(
    tmp_path: Path, times: Any, per_day: float, named: str
) -> None:
    values = np.random.default_rng(0).normal(size=(600, 2))
    pd.DataFrame(values, columns=["flow", "heat"]).assign(timestamp=times).to_csv(tmp_path / "a.csv", index=False)
    settings = TrainingSettings().changed({"series": {"window_length": 8, "window_stride": 4}})
    split = split_samples(load_training_data(tmp_path / "a.csv", Modality.SERIES), settings)
    found = sample_rate(settings.judgement, split)
    assert found.per_day == pytest.approx(per_day, rel=0.02)
    assert named in found.origin
    assert bool(found.origin) == bool(named)
    assert sample_rate(JudgementSettings(samples_per_day=50), split).per_day == 50
