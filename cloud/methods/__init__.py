"""Scoring methods of the cloud, by name.

To add a method, write its file and add its class to ANALYZERS. The tests of all methods then include it.
"""

from collections.abc import Mapping

from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, Need
from cloud.methods.baselines.isolation_forest import IsolationForest
from cloud.methods.baselines.knn import KNearestNeighbours
from cloud.methods.baselines.lof import LocalOutlierFactor
from cloud.methods.baselines.pca import PrincipalComponents
from cloud.methods.defaults.channel_imputation import ChannelImputation
from cloud.methods.defaults.defect_likeness import DefectLikeness
from cloud.methods.defaults.denoising_likelihood import DenoisingLikelihood
from cloud.methods.defaults.local_corruption import LocalCorruption
from cloud.methods.defaults.masked_likelihood import MaskedLikelihood
from cloud.methods.defaults.quantile_time_estimation import QuantileTimeEstimation
from cloud.methods.defaults.score_norm import ScoreNorm
from cloud.methods.defaults.time_estimation import TimeEstimation
from cloud.methods.families.block_masked import BlockMaskedReconstruction
from cloud.methods.families.conditional import ConditionalReconstruction
from cloud.methods.families.dte_c import DteC, PublishedDteC
from cloud.methods.families.dte_ig import DteIg
from cloud.methods.families.dynamic import DynamicReconstruction
from cloud.methods.families.guided import GuidedReconstruction
from cloud.methods.families.imputation import Imputation
from cloud.methods.families.latent import LatentReconstruction
from cloud.methods.families.one_step import OneStepReconstruction
from cloud.methods.families.reconstruction import DdimReconstruction, DdpmReconstruction, Reconstruction
from cloud.methods.families.simplex import SimplexReconstruction
from cloud.methods.features import (
    DetailFeatures,
    Features,
    PatchFeatures,
    VectorFeatures,
    ViewFeatures,
    WindowFeatures,
)
from cloud.methods.fit_context import FitContext
from cloud.methods.place_scaled import AnyAnalyzer, PatchScorer, PlaceScaled

ANALYZERS: dict[str, type[Analyzer]] = {
    kind.name: kind
    for kind in (
        Reconstruction,
        DdimReconstruction,
        DdpmReconstruction,
        GuidedReconstruction,
        DynamicReconstruction,
        OneStepReconstruction,
        ConditionalReconstruction,
        LatentReconstruction,
        SimplexReconstruction,
        BlockMaskedReconstruction,
        MaskedLikelihood,
        LocalCorruption,
        ChannelImputation,
        DefectLikeness,
        Imputation,
        ScoreNorm,
        DenoisingLikelihood,
        TimeEstimation,
        QuantileTimeEstimation,
        DteC,
        PublishedDteC,
        DteIg,
        KNearestNeighbours,
        LocalOutlierFactor,
        IsolationForest,
        PrincipalComponents,
    )
}

# Fitted in each run beside the fused analyzers, for a simple opinion beside every verdict.
BASELINES = tuple(name for name, kind in ANALYZERS.items() if kind.is_baseline)


def load_analyzer(name: str, state: Mapping[str, Tensor]) -> AnyAnalyzer:
    """Return the analyzer of that name with this state. Raises KeyError or RuntimeError if it does not fit."""
    kind = ANALYZERS[name]
    return PlaceScaled.from_state(kind, state) if PlaceScaled.holds(state) else kind.from_state(state)


__all__ = [
    "ANALYZERS",
    "BASELINES",
    "Analyzer",
    "AnalyzerOutput",
    "AnyAnalyzer",
    "DetailFeatures",
    "Features",
    "FitContext",
    "KNearestNeighbours",
    "Need",
    "PatchFeatures",
    "PatchScorer",
    "PlaceScaled",
    "VectorFeatures",
    "ViewFeatures",
    "WindowFeatures",
    "load_analyzer",
]
