"""The parity gate between FP32 and INT8."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import spearmanr

from cloud.training.parity import check, compare, rank_correlation
from cloud.training.settings import ToleranceSettings
from shared.errors import ParityError

TOLERANCES = ToleranceSettings().model_dump()


def scores(count: int = 500) -> np.ndarray:
    return np.random.default_rng(0).gamma(2.0, size=count)


def test_rank_correlation_with_ties_equals_that_of_scipy() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.integers(0, 9, 200).astype(float), generator.integers(0, 9, 200).astype(float)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second)[0])


def test_equal_artefacts_pass() -> None:
    figures = compare(scores(), scores(), operating_rate=0.05)
    assert figures.rank_correlation == pytest.approx(1)
    assert figures.label_agreement == 1
    check("fp32_onnxruntime", figures, TOLERANCES, scores())


@pytest.mark.parametrize(
    ("artefact", "damage", "figure"),
    [
        ("fp32_onnxruntime", lambda s: s + 0.01, "largest score difference"),
        ("int8_openvino", lambda s: np.random.default_rng(2).permutation(s), "rank correlation"),
        ("int8_openvino", lambda s: np.full_like(s, 3.0), "rank correlation"),
        ("int8_onnxruntime", lambda s: np.where(s > np.quantile(s, 0.9), s.max() - s, s), "correlation|agreement"),
    ],
)
def test_a_deviating_artefact_is_refused_with_name_and_figure(
    artefact: str, damage: Callable[[np.ndarray], np.ndarray], figure: str
) -> None:
    damaged = damage(scores())
    figures = compare(scores(), damaged, operating_rate=0.05)
    with pytest.raises(ParityError, match=figure) as caught:
        check(artefact, figures, TOLERANCES, scores())
    assert artefact in str(caught.value)


def test_a_loss_of_auroc_is_refused_and_a_gain_is_not() -> None:
    labels = np.arange(100) >= 80
    good, poor = labels.astype(float), np.random.default_rng(3).random(100)
    kept = {"operating_rate": 0.05, "labels": labels}
    loss = compare(scores(), scores(), reference_test=good, test=poor, **kept)
    gain = compare(scores(), scores(), reference_test=poor, test=good, **kept)
    check("int8_openvino", gain, TOLERANCES, scores())
    with pytest.raises(ParityError, match="AUROC"):
        check("int8_openvino", loss, TOLERANCES, scores())


def test_an_artefact_with_a_nan_score_is_refused() -> None:
    labels = np.arange(100) >= 80
    good = labels.astype(float)
    broken = np.where(np.arange(100) == 90, np.nan, good)
    figures = compare(scores(), scores(), operating_rate=0.05, labels=labels, reference_test=good, test=broken)
    with pytest.raises(ParityError, match="AUROC"):
        check("int8_openvino", figures, TOLERANCES, scores())
