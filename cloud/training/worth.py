"""Weights of fused methods from their AUROC on changed copies of held-out normal samples.

Methods that cannot see a kind of anomaly would dilute the others with equal weights. Images: methods that compare
patches with normal patches are at chance if every image has another layout, so held-out images are corrupted in one or
two places, and a method's worth is its AUROC above chance between copies and originals. This favours a method that
learned from such copies, but the images themselves are unseen. Rows: the copies have broken relations, and the worth is
the square of the excess. Copies with far values or noise would favour the methods that see these and no relations.

A method that learned from the held-out samples would recognise the originals in their copies, so its fit on the
training part is judged.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.methods import AnyAnalyzer
from cloud.methods.encoders import Encoder
from cloud.metrics import separation
from cloud.serving.encoding import Samples
from cloud.serving.scoring import joined_scores, score_blocks
from cloud.training.fitting import FitPlan, FittedAnalyzers
from cloud.training.modalities import training_modality


def member_worth(
    encoder: Encoder | None, fitted: FittedAnalyzers, fused: Sequence[str], held_out: Samples, plan: FitPlan
) -> dict[str, float]:
    """Return the worth, at least 0, of each of the `fused` methods.

    Empty for modalities without copies to weigh by, and if there is only one fused method.
    """
    modality = training_modality(held_out.preprocessor.modality)
    copies = modality.weighing_copies(encoder, held_out, plan.seed) if len(fused) > 1 else None
    if copies is None:
        return {}
    members = {name: fitted.without_held_out[name] for name in fused}
    found = _scores(encoder, members, copies, plan.device)
    learned = {name: member for name, member in members.items() if member is not fitted.analyzers[name]}
    normal = {**fitted.scores, **_scores(encoder, learned, held_out, plan.device)}
    excess = {name: max(separation(normal[name], found[name]) - 0.5, 0.0) for name in fused}
    return {name: value**modality.worth_exponent for name, value in excess.items()}


def _scores(
    encoder: Encoder | None, members: Mapping[str, AnyAnalyzer], samples: Samples, device: torch.device
) -> dict[str, NDArray[np.float64]]:
    """Return the scores (n,) of the samples by member."""
    if not members:
        return {}
    return joined_scores(members, [outputs for _, outputs in score_blocks(encoder, members, samples, device)])
