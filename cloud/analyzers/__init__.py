"""The cloud's scoring methods, by name. To add one: write its file, name it here; the tests of all will find it."""

from cloud.analyzers.base import Analyzer, AnalyzerOutput, Features
from cloud.analyzers.knn import KNearestNeighbours
from cloud.analyzers.reconstruction import Reconstruction
from cloud.analyzers.score_norm import ScoreNorm
from cloud.analyzers.time_estimation import TimeEstimation
from cloud.analyzers.workshop import Workshop

ANALYZERS: dict[str, type[Analyzer]] = {
    kind.name: kind for kind in (Reconstruction, ScoreNorm, TimeEstimation, KNearestNeighbours)
}

__all__ = ["ANALYZERS", "Analyzer", "AnalyzerOutput", "Features", "Workshop"]
