"""What an evaluation found: what its figures, its report and its plots are made from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.evaluation_data import EvaluationData
from cloud.evaluation.scoring import MethodScores, Scored
from shared.bundle import Manifest


@dataclass(frozen=True)
class Evaluation:
    """All that was found, for reports and plots: `said` are the methods with the baselines."""

    manifest: Manifest
    data: EvaluationData
    scored: Scored
    said: dict[str, MethodScores]
    labels: NDArray[np.bool_] | None
