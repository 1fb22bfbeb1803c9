"""Tests of training on faulty data: a one-line error, or a bundle with finite scores."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from cloud.evaluation.scoring import BundleScorer
from cloud.serving.analysis import Analysis
from cloud.training import TrainingSettings, load_training_data, train_bundle
from shared.bundle import Bundle
from shared.diffusion.training import OptimizerSettings
from shared.errors import DataError, SampleRejected
from shared.modality import Modality
from shared.samples import Verdict

TINY = {
    "head": {"steps": 60, "batch_size": 64, "perturbed": 2000},
    "hidden": (32, 32),
    "device": "cpu",
    "analyzers": ("knn", "time_estimation", "lof", "pca"),
    "tolerances": {"rank_correlation": 0.5, "label_agreement": 0.5, "auroc_difference": 1.0},
}
WITH_TREES = {**TINY, "analyzers": ("knn", "time_estimation", "lof", "isolation_forest", "pca")}  # takes twice as long
FEATURES = 4


def trained(
    folder: Path,
    rows: NDArray[np.float64],
    labels: NDArray[np.float64] | None = None,
    settings: Mapping[str, object] = TINY,
    **data: object,
) -> Bundle:
    torch.set_num_threads(1)
    path = folder / "rows.npz"
    np.savez(path, X=rows, **({} if labels is None else {"y": labels}))
    chosen = TrainingSettings.model_validate({**settings, "data": data})
    loaded = load_training_data(path, Modality.TABULAR, chosen.data)
    return train_bundle(loaded, chosen, Ed25519PrivateKey.generate())


def normal_rows(count: int = 160, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, FEATURES))
    values[:, 1] += values[:, 0]
    return values


def assert_numbers(bundle: Bundle, rows: NDArray[np.float64]) -> None:
    """Assert that every method gives every valid sample a finite score and a p-value in (0, 1]."""
    scored = BundleScorer(bundle, "cpu").score([rows])
    assert len(scored.kept) == len(rows)
    for name, method in scored.methods.items():
        assert np.isfinite(method.scores).all(), name
        assert method.p_values is not None
        assert ((method.p_values > 0) & (method.p_values <= 1)).all(), name


def test_constant_features_are_noted_and_a_changed_one_is_anomalous(tmp_path: Path) -> None:
    rows = normal_rows()
    rows[:, 2] = 7.0
    bundle = trained(tmp_path, rows, settings=WITH_TREES)
    assert any("constant in the normal data: x3" in note for note in bundle.manifest.training["notes"])
    fresh = normal_rows(40, 1)
    fresh[:, 2] = 7.0
    fresh[20:, 2] = 19.0
    assert_numbers(bundle, fresh)
    answers = Analysis.load(bundle, "cpu").judge(list(fresh))
    p = np.array([answer.p_value for answer in answers if isinstance(answer, Verdict)])
    assert np.median(p[20:]) < 0.02 < np.median(p[:20])


def test_data_with_only_constant_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="every column is constant"):
        trained(tmp_path, np.ones((100, 3)))


@pytest.mark.parametrize("missing", ["refuse", "allow"])
def test_a_column_without_a_value_is_named(tmp_path: Path, missing: str) -> None:
    rows = normal_rows()
    rows[:, 3] = np.nan
    with pytest.raises(DataError, match=r"column 'x4' holds no value at all. Leave it out"):
        trained(tmp_path, rows, missing=missing)


def test_a_column_with_values_only_in_anomalies_is_named(tmp_path: Path) -> None:
    rows, labels = normal_rows(), np.arange(160) >= 150
    rows[:150, 3] = np.nan
    with pytest.raises(DataError, match=r"column 'x4' is missing in every normal row"):
        trained(tmp_path, rows, labels, missing="allow")


def test_three_rows_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 normal rows, and at least 40 are needed"):
        trained(tmp_path, normal_rows(3))


@pytest.fixture(scope="module")
def one_class(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Train on rows that are all labelled normal."""
    return trained(tmp_path_factory.mktemp("one_class"), normal_rows(), np.zeros(160))


def test_one_class_trains_without_an_auroc_and_needs_normals(tmp_path: Path, one_class: Bundle) -> None:
    assert one_class.manifest.training["auroc"] == {}
    with pytest.raises(DataError, match="a label of 0 means normal"):
        trained(tmp_path, normal_rows(), np.ones(160))


def test_every_label_except_0_is_an_anomaly(tmp_path: Path) -> None:
    rows = normal_rows()
    rows[120:] += 9.0
    labels = np.where(np.arange(160) < 120, 0, np.arange(160) % 3 - 3)
    bundle = trained(tmp_path, rows, labels)
    assert bundle.manifest.training["labelled_samples"] == 36 + 40
    assert bundle.manifest.training["auroc"]["fused"] > 0.95
    for broken in (np.full(160, np.nan), np.zeros(159), np.zeros((160, 2))):
        with pytest.raises(DataError, match="labels 0 or 1 are needed"):
            trained(tmp_path, rows, broken)


def test_duplicated_rows_give_numbers_and_a_different_row_is_anomalous(tmp_path: Path) -> None:
    distinct = normal_rows(6)
    bundle = trained(tmp_path, np.repeat(distinct, 40, axis=0), settings=WITH_TREES)
    fresh = np.concatenate([distinct, distinct[:2] + 6.0])
    assert_numbers(bundle, fresh)
    scores = BundleScorer(bundle, "cpu").score([fresh]).methods["fused"].scores
    assert scores[6:].min() > scores[:6].max()


def test_a_value_beyond_float32_is_refused_in_training_and_anomalous_later(tmp_path: Path) -> None:
    rows = normal_rows()
    rows[5, 1] = 1e300
    with pytest.raises(DataError, match=r"row 6, column 'x2' is 1e\+300, which is too large"):
        trained(tmp_path, rows)
    bundle = trained(tmp_path, rows, bad_rows="drop")
    assert_numbers(bundle, np.where(np.arange(160)[:, np.newaxis] == 5, np.float64(1e300), rows)[:8])
    answer = Analysis.load(bundle, "cpu").judge([rows[5]])[0]
    assert isinstance(answer, Verdict)
    assert answer.p_value < 0.02


def test_huge_values_in_training_give_numbers(tmp_path: Path) -> None:
    rows = normal_rows()
    rows[:, 1] *= 1e37
    rows[7, 2] = 3e38
    assert_numbers(trained(tmp_path, rows), rows)


def test_samples_of_another_shape_are_rejected_one_by_one(one_class: Bundle) -> None:
    analysis = Analysis.load(one_class, "cpu")
    good = normal_rows(1)[0]
    answers = analysis.judge([good, good[:2], np.append(good, 1.0), np.ones((2, FEATURES)), good])
    assert [isinstance(answer, SampleRejected) for answer in answers] == [False, True, True, True, False]
    assert "2 features; expected 4" in str(answers[1])


@pytest.mark.parametrize("missing", ["refuse", "allow"])
def test_all_faults_at_once_give_numbers_from_the_default_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr("cloud.methods.fit_context.TRAINING", OptimizerSettings(steps=40))
    rows = np.repeat(normal_rows(40), 4, axis=0)
    rows[:, 2] = 7.0
    rows[:, 3] *= 1e37
    if missing == "allow":
        rows[::3, 0] = np.nan
        rows[::5, 3] = np.nan
    settings = {key: value for key, value in TINY.items() if key != "analyzers"}
    bundle = trained(tmp_path, rows, settings=settings, missing=missing)
    strange = np.array([[1e30, -1e30, 0.0, 3e38], [0.0, 0.0, 7.0, 0.0], [0.1, 0.1, 6.9, -3e38]])
    assert_numbers(bundle, np.concatenate([rows[:20], strange]))


def readings(count: int = 400) -> NDArray[np.float64]:
    waves = np.sin(np.arange(count)[:, np.newaxis] / np.array([3.0, 5.0, 7.0]))
    return waves + 0.05 * np.random.default_rng(0).normal(size=waves.shape)


def series_of(folder: Path, values: NDArray[np.float64], **data: object) -> Bundle:
    torch.set_num_threads(1)
    np.savez(folder / "readings.npz", train=values)
    chosen = TrainingSettings.model_validate({**TINY, "data": data, "series": {"window_length": 8}})
    loaded = load_training_data(folder / "readings.npz", Modality.SERIES, chosen.data)
    return train_bundle(loaded, chosen, Ed25519PrivateKey.generate())


def test_a_series_with_gaps_a_constant_channel_and_a_mode_gives_numbers(tmp_path: Path) -> None:
    values = np.column_stack([readings(), np.full(400, 3.0), np.arange(400) // 20 % 2])
    values[50:53] = np.where(np.arange(5) < 4, np.nan, values[50:53])
    values[100:300:7, 1] = np.nan
    bundle = series_of(tmp_path, values, missing="allow", mode_column="channel5")
    assert bundle.manifest.input.modes == (0.0, 1.0)
    windows = np.lib.stride_tricks.sliding_window_view(values, 8, axis=0)[::8].transpose(0, 2, 1)
    assert_numbers(bundle, np.ascontiguousarray(windows))


def test_huge_readings_and_a_periodic_series_give_numbers(tmp_path: Path) -> None:
    def windows(values: NDArray[np.float64]) -> NDArray[np.float64]:
        cut = np.lib.stride_tricks.sliding_window_view(values, 8, axis=0)[::8]
        return np.ascontiguousarray(cut.transpose(0, 2, 1))

    huge = readings()
    huge[40, 0], huge[90, 1] = 1e37, -3e37
    assert_numbers(series_of(tmp_path, huge), windows(huge))
    repeated = np.tile(readings(8), (50, 1))
    assert_numbers(series_of(tmp_path, repeated), windows(np.concatenate([repeated[:80], 1e30 * readings(80)])))


def test_an_unusable_series_is_refused(tmp_path: Path) -> None:
    for change, words in (
        (np.full((400, 3), 2.0), "every column is constant"),
        (readings(3), "give 0 windows"),
        (np.where(np.arange(3) == 1, np.nan, readings()), "column 'channel2' holds no value"),
    ):
        with pytest.raises(DataError, match=words):
            series_of(tmp_path, change, missing="allow")
    gap = readings()
    gap[9, 1] = np.inf
    with pytest.raises(DataError, match="row 10, column 'channel2' is inf"):
        series_of(tmp_path, gap, missing="allow")
