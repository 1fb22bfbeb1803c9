"""The cloud's scoring methods, by name. To add one: write its file, name it here; the tests of all will find it."""

from cloud.methods.base import Analyzer, AnalyzerOutput, Features
from cloud.methods.baselines.isolation_forest import IsolationForest
from cloud.methods.baselines.knn import KNearestNeighbours
from cloud.methods.baselines.lof import LocalOutlierFactor
from cloud.methods.baselines.pca import PrincipalComponents
from cloud.methods.defaults.channel_imputation import ChannelImputation
from cloud.methods.defaults.denoising_likelihood import DenoisingLikelihood
from cloud.methods.defaults.local_corruption import ImageWorkshop, LocalCorruption
from cloud.methods.defaults.masked_likelihood import MaskedLikelihood
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
from cloud.methods.placed import AnyAnalyzer, Placed
from cloud.methods.workshop import Workshop
from shared.modality import Modality

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
        Imputation,
        ScoreNorm,
        DenoisingLikelihood,
        TimeEstimation,
        DteC,
        PublishedDteC,
        DteIg,
        KNearestNeighbours,
        LocalOutlierFactor,
        IsolationForest,
        PrincipalComponents,
    )
}

# What is fused unless a training run names others; docs/methods/fusion.md says on what evidence.
DEFAULT_METHODS: dict[Modality, tuple[str, ...]] = {
    Modality.TABULAR: ("time_estimation", "denoising_likelihood", "masked_likelihood"),
    Modality.SERIES: ("time_estimation", "channel_imputation"),
    Modality.VIDEO: ("knn", "time_estimation", "score_norm"),
    Modality.IMAGE: ("score_norm", "local_corruption"),
}
# Fitted too, so that a simple opinion stands beside every verdict, and not fused.
BASELINES = ("knn",)
# These train no network: in seconds they are fitted again with more samples.
QUICK_TO_FIT = frozenset(
    kind.name
    for kind in (
        KNearestNeighbours,
        TimeEstimation,
        LocalOutlierFactor,
        IsolationForest,
        PrincipalComponents,
        ChannelImputation,
    )
)
# These are trained on normal patches of every place as such, so of images their scores need no scale for each place.
LEARN_PLACES = frozenset({LocalCorruption.name})
# These see a window's readings, or what lies around a patch, themselves: a teacher of single vectors cannot ask them.
SEE_MORE_THAN_VECTORS: dict[Modality, frozenset[str]] = {
    Modality.SERIES: frozenset({Imputation.name, SimplexReconstruction.name, BlockMaskedReconstruction.name}),
    Modality.IMAGE: frozenset({SimplexReconstruction.name, BlockMaskedReconstruction.name}),
}

__all__ = [
    "ANALYZERS",
    "BASELINES",
    "DEFAULT_METHODS",
    "LEARN_PLACES",
    "QUICK_TO_FIT",
    "SEE_MORE_THAN_VECTORS",
    "Analyzer",
    "AnalyzerOutput",
    "AnyAnalyzer",
    "Features",
    "ImageWorkshop",
    "KNearestNeighbours",
    "LocalCorruption",
    "Placed",
    "Workshop",
]
