"""Estimator of scikit-learn for vectors, with the names of PyOD."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from cloud.api.fitting import Fit, save_bundle
from cloud.serving.analysis import FUSED, Analysis
from cloud.training.data import checked
from cloud.training.samples import MIN_TRAIN
from cloud.training.settings import TrainingSettings
from shared.calibration import MIN_CALIBRATION_SIZE
from shared.errors import DataError
from shared.home import signing_key
from shared.modality import Modality

MIN_SAMPLES = MIN_TRAIN + MIN_CALIBRATION_SIZE
_ROWS_PER_BLOCK = 16_384


class VectorDetector(BaseEstimator):
    """Anomaly detector for rows of numbers, in the form of scikit-learn with the names of PyOD.

    Scores grow with abnormality and labels are 0 (normal) and 1 (anomalous), as in PyOD.

    Args:
        contamination: Share of the training rows to label as anomalous, in (0, 0.5]; it sets `threshold_`.
        effort: Factor on all training steps; 1 is the effort of `vedette train`, and five times slower.
        analyzers: Analyzers to fit; empty: the defaults for tables.
        random_state: Seed of all random draws.
        device: "auto", "cpu" or "cuda".

    Attributes:
        decision_scores_: Scores (n,) of the training rows, higher for more anomalous rows.
        threshold_: Score above which a row is labelled anomalous.
        labels_: Labels (n,) of the training rows.
        n_features_in_: Number of features.
    """

    modality: Modality = Modality.TABULAR

    def __init__(
        self,
        *,
        contamination: float = 0.1,
        effort: float = 0.2,
        analyzers: Sequence[str] = (),
        random_state: int = 0,
        device: str = "auto",
    ) -> None:
        self.contamination = contamination
        self.effort = effort
        self.analyzers = analyzers
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from rows X (n, features), most of them normal; `y` is ignored. Return the estimator.

        Raises ValueError for rows or parameters that cannot be used. Warns below MIN_SAMPLES rows, which are too few to
        hold a part out for p-values.
        """
        if not 0 < self.contamination <= 0.5:
            raise ValueError(f"contamination is {self.contamination!r}; it must be above 0 and at most 0.5.")
        rows = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self._few = len(rows) < MIN_SAMPLES
        settings = TrainingSettings().changed(
            {
                "effort": self.effort,
                "analyzers": tuple(self.analyzers),
                "seed": int(self.random_state),
                "device": self.device,
                "name": "vectors",
            }
        )
        self._fit = Fit.of(_table(self._enough(rows), settings), settings)
        self.decision_scores_ = self._statistic(rows)
        self.threshold_ = float(np.quantile(self.decision_scores_, 1 - self.contamination))
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(np.int64)
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return the scores (n,) of rows X (n, features), higher for more anomalous rows."""
        return self._statistic(self._checked(X))

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return labels (n,): 1 for rows that score above `threshold_`, else 0."""
        return (self.decision_function(X) > self.threshold_).astype(np.int64)

    def fit_predict(self, X: Any, y: Any = None) -> NDArray[np.int64]:
        """Fit on rows X (n, features) and return their labels (n,)."""
        return self.fit(X).labels_

    @overload
    def p_values(self, X: Any) -> NDArray[np.float64]: ...
    @overload
    def p_values(
        self, X: Any, *, return_extrapolated: Literal[True]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]: ...
    def p_values(
        self, X: Any, *, return_extrapolated: bool = False
    ) -> NDArray[np.float64] | tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return conformal p-values (n,): the share of normal rows that score at least as high.

        With `return_extrapolated`, also return (n,) bool, true for p-values from the fitted tail: the row scores higher
        than all held-out rows, and only the order of magnitude counts.
        """
        statistic = self._statistic(self._checked(X))
        found = self._analysis.fusion.p_values(statistic, None)
        return (found.values, found.extrapolated) if return_extrapolated else found.values

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return (n, 2): the p-value, and 1 minus the p-value as the confidence that a row is anomalous.

        This is no posterior: half of all normal rows have a confidence above 0.5.
        """
        normal = self.p_values(X)
        return np.column_stack([normal, 1.0 - normal])

    def save(self, path: str | Path, *, key: str | Path | None = None) -> Path:
        """Build the device's screener and write a signed bundle; return its path.

        `key`: private signing key; by default $VEDETTE_HOME/signing.pem, made at first use. Read the bundle with
        `Detector.load`. Raises DataError below MIN_SAMPLES training rows, ParityError if the quantised screener
        disagrees with the original.
        """
        check_is_fitted(self)
        if self._few:
            raise DataError(f"A bundle needs at least {MIN_SAMPLES} training rows: fit on more.")
        bundle = self._fit.bundle(signing_key(None if key is None else Path(key)))
        save_bundle(bundle, Path(path))
        return Path(path)

    @property
    def _analysis(self) -> Analysis:
        return self._fit.analysis

    def _checked(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        rows: NDArray[np.float64] = validate_data(self, X, dtype=np.float64, reset=False)
        return rows

    def _statistic(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        blocks = [rows[start : start + _ROWS_PER_BLOCK] for start in range(0, len(rows), _ROWS_PER_BLOCK)]
        scores = np.concatenate([self._analysis.score(block)[FUSED] for block in blocks])
        if len(scores) != len(rows):
            raise ValueError("X holds a value that the detector cannot use.")
        return np.asarray(scores, dtype=np.float64)

    def _enough(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the rows, repeated up to MIN_SAMPLES, with a warning."""
        if not self._few:
            return rows
        warnings.warn(
            f"{len(rows)} training rows are too few to hold any out: p-values need at least {MIN_SAMPLES}. "
            "Rely on the order of scores only.",
            UserWarning,
            stacklevel=3,
        )
        return np.resize(rows, (MIN_SAMPLES, rows.shape[1]))


def _table(rows: NDArray[np.float64], settings: TrainingSettings) -> Any:
    columns = [f"x{index + 1}" for index in range(rows.shape[1])]
    return checked(Path("vectors"), VectorDetector.modality, columns, rows.copy(), settings.data)
