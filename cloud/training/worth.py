"""What each method is worth on the images at hand, told from normal ones alone.

A method that compares patches with normal ones is at chance where every image has another layout, and an equal vote
would let it drown those that see. So held-out normal images are corrupted, each in one or two places, and a member of
the fusion counts in proportion to how far above chance it tells the copies from the originals. That flatters the method
that learned from such copies, but not beyond what it says of images that it has not seen.
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

MOST_COPIES = 30
MOST_PLACES = 2


def image_worth(
    encoder: Encoder | None, fitted: FittedAnalyzers, fused: Sequence[str], held_out: Samples, plan: FitPlan
) -> dict[str, float]:
    """AUROC - 1/2 of each of the `fused` methods, at least 0, between held-out images and corrupted copies of them.

    Empty for other modalities, and where one method alone makes the verdict.
    """
    if not training_modality(held_out.preprocessor.modality).weighs_by_corruption or len(fused) < 2:
        return {}
    copies = _corrupted(encoder, held_out, plan.seed)
    members = {name: fitted.analyzers[name] for name in fused}
    found = joined_scores(fused, [outputs for _, outputs in score_blocks(encoder, members, copies, plan.device)])
    return {name: max(separation(fitted.scores[name], found[name]) - 0.5, 0.0) for name in fused}


def _corrupted(encoder: Encoder | None, held_out: Samples, seed: int) -> Samples:
    """Copies of at most MOST_COPIES of the images."""
    generator = np.random.default_rng([seed % 2**32, len(held_out)])
    chosen = generator.permutation(len(held_out))[:MOST_COPIES]
    bilevel = bool(getattr(encoder, "bilevel", False))
    images, others = held_out.inputs[chosen], held_out.inputs[generator.permutation(len(held_out))[: len(chosen)]]
    copies = [
        corrupt(image, other, generator, bilevel=bilevel, most_places=MOST_PLACES)[0]
        for image, other in zip(images, others, strict=True)
    ]
    return Samples.prepare(held_out.preprocessor, np.stack(copies))
