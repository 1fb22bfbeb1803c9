"""The parity gate: a bundle is built only if its artefacts agree with the FP32 torch model on held-out data."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cloud.metrics import auroc, mean_ranks
from shared.bundle import ParityFigures
from shared.calibration import Calibration
from shared.errors import ParityError

ALLOWED_DISAGREEMENTS = 2  # always tolerated: one in twenty samples is already 5 %


def compare(
    reference: NDArray[np.float64],
    scores: NDArray[np.float64],
    *,
    operating_rate: float,
    labels: NDArray[np.bool_] | None = None,
    reference_test: NDArray[np.float64] | None = None,
    test: NDArray[np.float64] | None = None,
) -> ParityFigures:
    """Compare the `scores` (n,) of one artefact with the `reference` (n,) of the FP32 model, both of held-out normals.

    With `labels` (m,) and the scores `test` and `reference_test` (m,), the figures include the difference in AUROC.
    """
    own = Calibration.fit(scores).threshold(operating_rate)
    other = Calibration.fit(reference).threshold(operating_rate)
    difference = None
    if labels is not None and test is not None and reference_test is not None:
        is_finite = bool(np.isfinite(test).all() and np.isfinite(reference_test).all())
        difference = auroc(labels, test) - auroc(labels, reference_test) if is_finite else -1.0  # NaN: the worst
    return ParityFigures(
        rank_correlation=rank_correlation(reference, scores),
        label_agreement=float(np.mean((scores >= own) == (reference >= other))),
        max_score_difference=float(np.abs(scores - reference).max()),
        auroc_difference=difference,
    )


def check(
    artefact: str, figures: ParityFigures, tolerances: Mapping[str, float], reference: NDArray[np.float64]
) -> None:
    """Raise ParityError with the artefact and the figure if one lies outside the tolerances.

    `reference`: (n,) scores of the FP32 model on held-out normals; their standard deviation is the unit of the
    tolerance for FP32 score differences.
    """
    if artefact.startswith("fp32"):
        limit = tolerances["fp32_score_difference"] * max(float(reference.std()), 1e-6)
        _refuse(artefact, "largest score difference", figures.max_score_difference, "above", limit)
    _refuse(artefact, "rank correlation", figures.rank_correlation, "below", tolerances["rank_correlation"])
    if (1 - figures.label_agreement) * len(reference) > ALLOWED_DISAGREEMENTS + 1e-9:
        _refuse(artefact, "label agreement", figures.label_agreement, "below", tolerances["label_agreement"])
    if figures.auroc_difference is not None:
        _refuse(artefact, "AUROC difference", figures.auroc_difference, "below", -tolerances["auroc_difference"])


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return Spearman's rho of two lists of scores (n,); 0 if one of them is constant."""
    ranks = [mean_ranks(scores) for scores in (first, second)]
    centred = [rank - rank.mean() for rank in ranks]
    scale = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum() / scale) if scale > 0 else 0.0


def _refuse(artefact: str, figure: str, value: float, side: str, limit: float) -> None:
    outside = not (value <= limit) if side == "above" else not (value >= limit)
    if outside:
        raise ParityError(
            f"{artefact}: its {figure} with the FP32 model is {value:.4g}, {side} the tolerance of {limit:.4g}. Give "
            "more or cleaner normal data, or change tolerances in --config if the difference is acceptable."
        )
