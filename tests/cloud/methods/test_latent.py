"""Tests of latent reconstruction: rows that the code cannot represent, and rows with unusual codes."""

import pytest
import torch

from cloud.methods import VectorFeatures
from cloud.methods.families.latent import LatentReconstruction, code_size
from cloud.methods.fit_context import FitContext
from shared.diffusion.training import OptimizerSettings


def on_a_plane(count: int, seed: int) -> torch.Tensor:
    """Return rows of 6 features on a two-dimensional plane."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.nn.functional.normalize(torch.randn(2, 6, generator=torch.Generator().manual_seed(9)), dim=1)
    return torch.randn(count, 2, generator=generator) @ axes


def test_the_size_of_the_code_follows_the_rank_of_the_data() -> None:
    assert code_size(on_a_plane(200, 0)) == 2
    assert code_size(torch.zeros(50, 4)) == 1
    assert code_size(torch.randn(500, 4, generator=torch.Generator().manual_seed(0))) == 3
    assert code_size(torch.randn(50, 1)) == 1


@pytest.fixture(scope="module")
def analyzer() -> LatentReconstruction:
    fitted = LatentReconstruction()
    normals = VectorFeatures(on_a_plane(500, 1).unsqueeze(1))
    fitted.fit(normals, FitContext(training=OptimizerSettings(steps=150, batch_size=64)))
    return fitted


@pytest.mark.parametrize("kind", ["off the plane", "far out on the plane"])
def test_both_kinds_of_anomaly_score_higher(kind: str, analyzer: LatentReconstruction) -> None:
    fresh = on_a_plane(200, 2)
    off = torch.randn(200, 6, generator=torch.Generator().manual_seed(3))
    odd = fresh + 0.5 * off if kind == "off the plane" else 4.0 * fresh / fresh.norm(dim=1, keepdim=True)
    normal = analyzer.score(VectorFeatures(fresh.unsqueeze(1))).scores
    anomalous = analyzer.score(VectorFeatures(odd.unsqueeze(1))).scores
    assert (normal.unsqueeze(1) < anomalous).float().mean() > 0.85
