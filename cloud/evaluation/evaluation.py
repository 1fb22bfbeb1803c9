"""What an evaluation found: what its figures, its report and its plots are made from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.material import Material
from cloud.evaluation.scoring import Said, Scored
from shared.bundle import Manifest


@dataclass(frozen=True)
class Evaluation:
    """All that was found, for reports and plots: `said` are the methods with the baselines."""

    manifest: Manifest
    material: Material
    scored: Scored
    said: dict[str, Said]
    labels: NDArray[np.bool_] | None
