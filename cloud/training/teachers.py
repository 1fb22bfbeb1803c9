"""Teachers of the screener's head: fused scores of vectors and patches."""

import numpy as np
import torch
from torch import Tensor

from cloud.methods import PatchScorer
from cloud.modalities import vector_modality
from cloud.serving.analysis import Analysis
from cloud.serving.encoding import BLOCK_VECTORS
from cloud.serving.scoring import joined_scores
from shared.diffusion.distillation import Teacher
from shared.preprocessing import modes_of

MIN_TEACHING_WEIGHT = 1e-3  # weight of a teacher that is worth nothing: a head has to learn something


def fused_teacher(analysis: Analysis) -> Teacher:
    """Return the teacher whose target is log(1 + fused score) of graph inputs (n, dim).

    The logarithm limits the weight of the few distant vectors beside the many near the normal ones, where ranks matter.
    """
    preprocessor, fusion = analysis.preprocessor, analysis.fusion
    members = {name: analysis.analyzers[name] for name in fusion.member_calibrations}
    modality = vector_modality(preprocessor.modality)

    def targets(vectors: Tensor, rows: Tensor) -> Tensor:
        inputs = vectors.cpu().numpy()
        features = modality.vector_features(inputs, preprocessor, analysis.device)
        outputs = [
            {name: analyzer.score(block) for name, analyzer in members.items()}
            for block in features.blocks(BLOCK_VECTORS)
        ]
        fused = fusion.statistic(joined_scores(members, outputs), modes_of(inputs, preprocessor.spec))
        return torch.from_numpy(np.log1p(fused)).to(vectors)

    return targets


def patch_teacher(analysis: Analysis) -> Teacher | None:
    """Return the teacher of patches (n, dim): the fused analyzers that compare them. None if there is none.

    The target is the mean of their deviations above normal, by their weights in the fusion. The inverse hyperbolic sine
    is the identity near 0 and a logarithm for large values, so that distant vectors do not dominate.
    """
    fusion = analysis.fusion
    members = {name: analysis.analyzers[name] for name in fusion.member_calibrations}
    scorers = {name: analyzer for name, analyzer in members.items() if isinstance(analyzer, PatchScorer)}
    if not scorers:
        return None
    weights = torch.tensor([max(fusion.weights[name], MIN_TEACHING_WEIGHT) for name in scorers])

    def targets(vectors: Tensor, rows: Tensor) -> Tensor:
        with torch.no_grad():
            found = torch.stack([analyzer.deviations(vectors.to(analysis.device)) for analyzer in scorers.values()])
        mean = (weights.to(found) / weights.sum()) @ found
        return mean.asinh().to(vectors)

    return targets
