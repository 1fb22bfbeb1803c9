"""The estimator follows scikit-learn's rules and PyOD's names."""

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError

from cloud.api.detector import Detector
from cloud.api.estimator import VectorDetector
from shared.errors import DataError, SettingsError

QUICK = {"effort": 0.001, "analyzers": ("knn",), "device": "cpu"}
ODD = np.full((3, 4), 9.0)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(200, 4))


@pytest.fixture(scope="module")
def fitted(rows: NDArray[np.float64]) -> VectorDetector:
    return VectorDetector(**QUICK).fit(rows)


def test_it_passes_the_checks_of_scikit_learn() -> None:
    from sklearn.utils.estimator_checks import check_estimator  # half a second, which other workers need not spend

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(VectorDetector(**QUICK), on_fail=None)
    failed = [each["check_name"] for each in results if each["status"] == "failed"]
    assert not failed
    assert sum(each["status"] == "passed" for each in results) >= 35


def test_names_and_signs_are_those_of_pyod(fitted: VectorDetector, rows: NDArray[np.float64]) -> None:
    assert fitted.decision_scores_.shape == fitted.labels_.shape == (200,)
    assert fitted.labels_.mean() == pytest.approx(0.1, abs=0.005)
    assert fitted.decision_function(ODD).min() > fitted.decision_scores_.max()
    assert fitted.predict(ODD).tolist() == [1, 1, 1]
    proba = fitted.predict_proba(np.vstack([rows, ODD]))
    assert proba.shape == (203, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert proba[-3:, 1].min() > 0.98
    assert np.array_equal(VectorDetector(**QUICK).fit_predict(rows), fitted.labels_)


def test_p_values_of_new_normal_rows_are_spread_evenly(fitted: VectorDetector) -> None:
    p_values = fitted.p_values(np.random.default_rng(1).normal(size=(400, 4)))
    assert 0.35 < np.median(p_values) < 0.65


def test_extrapolated_p_values_are_marked(fitted: VectorDetector) -> None:
    normal = np.random.default_rng(1).normal(size=(400, 4))
    p_values, extrapolated = fitted.p_values(np.vstack([normal, np.full((1, 4), 9.0)]), return_extrapolated=True)
    assert extrapolated[-1]
    assert not extrapolated[:-1].all()
    assert p_values[extrapolated].max() < p_values[~extrapolated].min()
    np.testing.assert_array_equal(fitted.p_values(normal), p_values[:-1])


def test_the_default_analyzers_fit_too(rows: NDArray[np.float64]) -> None:
    detector = VectorDetector(effort=0.005, device="cpu").fit(rows)
    assert detector.predict(ODD).all()


def test_a_saved_bundle_gives_the_same_scores(
    fitted: VectorDetector, rows: NDArray[np.float64], tmp_path: Path
) -> None:
    loaded = Detector.load(fitted.save(tmp_path / "vectors.vedette"))
    found = loaded.score(np.vstack([rows[:20], ODD]))
    np.testing.assert_allclose(found.scores, fitted.decision_function(np.vstack([rows[:20], ODD])), rtol=1e-5)
    assert found.anomalous[-3:].all()
    assert loaded.score(ODD, method="screener").anomalous.all()


def test_a_pickled_copy_gives_the_same_scores(fitted: VectorDetector, rows: NDArray[np.float64]) -> None:
    """Check what scikit-learn's parallel searches need; the product itself loads no pickle."""
    copy = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(copy.decision_function(rows), fitted.decision_function(rows))


def test_few_rows_are_a_warning_and_no_bundle(rows: NDArray[np.float64], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="too few"):
        detector = VectorDetector(**QUICK).fit(rows[:15])
    with pytest.raises(DataError, match="at least 40"):
        detector.save(tmp_path / "few.vedette")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("contamination", [0, -0.1, 0.6, float("nan")])
def test_a_share_that_cannot_be_is_refused(rows: NDArray[np.float64], contamination: float) -> None:
    with pytest.raises(ValueError, match="contamination"):
        VectorDetector(contamination=contamination, **QUICK).fit(rows)


def test_wrong_use_says_what_to_do(rows: NDArray[np.float64], tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        VectorDetector().save(tmp_path / "a.vedette")
    with pytest.raises(SettingsError, match="there is no 'svm'"):
        VectorDetector(analyzers=("svm",)).fit(rows)
    with pytest.raises(ValueError, match="NaN"):
        VectorDetector(**QUICK).fit(np.where(rows > 2, np.nan, rows))
