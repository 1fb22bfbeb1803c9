"""A channel that is stuck for ten hours is found by default; skipped without the case's folder."""

import numpy as np

from cloud.evaluation.evaluation_data import read_evaluation_data
from cloud.evaluation.metrics import recall_at
from cloud.evaluation.scoring import BundleScorer
from cloud.modalities import cloud_modality
from cloud.training.settings import DataSettings
from shared.modality import Modality
from tests.cases import case
from tests.cloud.training.conftest import train

KNN_ON_WINDOWS = 0.83  # its recall at 5 % false alarms


def test_a_stuck_channel_is_found_at_least_as_well_as_knn_on_windows_finds_it() -> None:
    folder = case("12-stuck-channel")
    methods = cloud_modality(Modality.SERIES).default_methods
    trained = train(folder / "normal.csv", Modality.SERIES, analyzers=methods)
    data = read_evaluation_data(folder / "stuck_power_labelled.csv", trained.bundle.manifest, DataSettings())
    scored = BundleScorer(trained.bundle, "cpu").score(data.blocks())
    assert data.labels is not None
    labels = data.labels[scored.kept]
    for name in ("fused", scored.edge):
        method = scored.methods[name]
        assert recall_at(labels, method.scores, 0.05) >= KNN_ON_WINDOWS
        assert method.p_values is not None
        assert np.mean(method.p_values[labels] <= 0.05) >= KNN_ON_WINDOWS
        assert np.mean(method.p_values[~labels] <= 0.05) <= 0.05
