"""The local corruption head learns from corrupted copies."""

import torch

from cloud.methods import DetailFeatures, FitContext, PatchFeatures, VectorFeatures
from cloud.methods.defaults.local_corruption import LocalCorruption
from shared.diffusion.local_corruption import CorruptedPatches
from shared.diffusion.training import OptimizerSettings


def test_the_head_learns_from_corrupted_copies() -> None:
    """Check that a direction of normal variation counts only if corrupted copies move along it."""
    generator = torch.Generator().manual_seed(0)
    touched, untouched = (torch.randn(count, 8, generator=generator) for count in (400, 5600))
    touched[:, 0] += 3.0
    analyzer = LocalCorruption()
    normal = torch.zeros(2, 100, 4)
    analyzer.fit(
        PatchFeatures(normal, grid=(10, 10)),
        FitContext(seed=0, effort=0.18, corrupted=CorruptedPatches(touched, untouched)),
    )
    moved = torch.zeros(2, 100, 8)
    moved[0, 37, 0], moved[1, 37, 0] = 4.0, -4.0
    maps = analyzer.score(DetailFeatures(normal, grid=(10, 10), details=moved)).maps
    assert maps is not None
    assert maps[0, 3, 7] > maps[0, 9, 0] + 2.0
    assert maps[1, 3, 7] < maps[1, 9, 0] + 0.5


def test_equal_seeds_train_equal_heads() -> None:
    features = VectorFeatures(torch.randn(400, 1, 5, generator=torch.Generator().manual_seed(1)))
    scores = []
    for _ in range(2):
        analyzer = LocalCorruption()
        analyzer.fit(features, FitContext(seed=4, training=OptimizerSettings(steps=40)))
        torch.rand(7)  # the global generator must not matter
        scores.append(analyzer.score(features).scores)
    torch.testing.assert_close(scores[0], scores[1])
