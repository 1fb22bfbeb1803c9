"""Result of an evaluation, input of its metrics, report and plots."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.evaluation_data import EvaluationData
from cloud.evaluation.scoring import MethodScores, Scored
from shared.bundle import Manifest


@dataclass(frozen=True)
class Evaluation:
    """Scores of one bundle on one data set.

    `methods`: scores by name, including the baselines. `labels`: (n,) bool of the scored samples, or None.
    """

    manifest: Manifest
    data: EvaluationData
    scored: Scored
    methods: dict[str, MethodScores]
    labels: NDArray[np.bool_] | None
