"""Weights of fused methods from their AUROC on corrupted copies of held-out normal images.

Methods that compare patches with normal patches are at chance if every image has another layout, and with equal weights
they would dilute the others. Therefore held-out normal images are corrupted in one or two places, and a method gets a
weight in proportion to its AUROC above chance between copies and originals. This favours a method that learned from
such copies, but the images themselves are unseen.
"""

from collections.abc import Sequence

import numpy as np

from cloud.methods.encoders import Encoder
from cloud.metrics import separation
from cloud.serving.encoding import Samples
from cloud.serving.scoring import joined_scores, score_blocks
from cloud.training.encoders import corrupt
from cloud.training.fitting import FitPlan, FittedAnalyzers
from cloud.training.modalities import training_modality

MAX_COPIES = 30
MAX_PLACES = 2


def image_worth(
    encoder: Encoder | None, fitted: FittedAnalyzers, fused: Sequence[str], held_out: Samples, plan: FitPlan
) -> dict[str, float]:
    """Return AUROC - 1/2, at least 0, of each of the `fused` methods between held-out images and corrupted copies.

    Empty for other modalities, and if there is only one fused method.
    """
    if not training_modality(held_out.preprocessor.modality).weighs_by_corruption or len(fused) < 2:
        return {}
    copies = _corrupted(encoder, held_out, plan.seed)
    members = {name: fitted.analyzers[name] for name in fused}
    found = joined_scores(fused, [outputs for _, outputs in score_blocks(encoder, members, copies, plan.device)])
    return {name: max(separation(fitted.scores[name], found[name]) - 0.5, 0.0) for name in fused}


def _corrupted(encoder: Encoder | None, held_out: Samples, seed: int) -> Samples:
    """Return corrupted copies of at most MAX_COPIES images."""
    generator = np.random.default_rng([seed % 2**32, len(held_out)])
    chosen = generator.permutation(len(held_out))[:MAX_COPIES]
    bilevel = bool(getattr(encoder, "bilevel", False))
    images, others = held_out.inputs[chosen], held_out.inputs[generator.permutation(len(held_out))[: len(chosen)]]
    copies = [
        corrupt(image, other, generator, bilevel=bilevel, max_places=MAX_PLACES)[0]
        for image, other in zip(images, others, strict=True)
    ]
    return Samples.prepare(held_out.preprocessor, np.stack(copies))
