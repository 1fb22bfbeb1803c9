"""The cloud's scoring methods, by name. To add one: write its file, name it here; the tests of all will find it."""

from cloud.analyzers.base import Analyzer, AnalyzerOutput, Features
from cloud.analyzers.block_masked import BlockMaskedReconstruction
from cloud.analyzers.conditional import ConditionalReconstruction
from cloud.analyzers.dte_c import DteC, PublishedDteC
from cloud.analyzers.dte_ig import DteIg
from cloud.analyzers.dynamic import DynamicReconstruction
from cloud.analyzers.guided import GuidedReconstruction
from cloud.analyzers.isolation_forest import IsolationForest
from cloud.analyzers.knn import KNearestNeighbours
from cloud.analyzers.latent import LatentReconstruction
from cloud.analyzers.lof import LocalOutlierFactor
from cloud.analyzers.one_step import OneStepReconstruction
from cloud.analyzers.pca import PrincipalComponents
from cloud.analyzers.reconstruction import DdimReconstruction, DdpmReconstruction, Reconstruction
from cloud.analyzers.score_norm import ScoreNorm
from cloud.analyzers.simplex import SimplexReconstruction
from cloud.analyzers.time_estimation import TimeEstimation
from cloud.analyzers.workshop import Workshop

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
        ScoreNorm,
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

__all__ = ["ANALYZERS", "Analyzer", "AnalyzerOutput", "Features", "Workshop"]
