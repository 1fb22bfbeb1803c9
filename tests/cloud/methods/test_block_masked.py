"""Tests of block masks: a masked entry must not leak into its own reconstruction."""

import pytest
import torch

from cloud.methods import PatchFeatures, VectorFeatures, WindowFeatures
from cloud.methods.canvas import Kind
from cloud.methods.families import block_masked
from cloud.methods.families.block_masked import BlockMaskedReconstruction, random_covers
from cloud.methods.fit_context import FitContext
from shared.diffusion.training import OptimizerSettings

SHAPES = {Kind.ROWS: (1, 10), Kind.WINDOWS: (1, 16, 3), Kind.GRIDS: (1, 3, 14, 14)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", list(Kind))
def test_each_block_of_a_cover_masks_its_share(kind: Kind) -> None:
    values = torch.zeros(SHAPES[kind])
    ids = random_covers(kind, values, 50, generator()).expand(50, *values.shape[1:])
    shares = torch.stack([(ids == block).flatten(1).float().mean(dim=1) for block in range(block_masked.BLOCKS)])
    assert torch.allclose(shares.sum(dim=0), torch.ones(50))
    assert (shares > 0.1).all()
    assert (shares < 0.45).all()
    assert len(torch.unique(ids.flatten(1), dim=0)) > 1  # the borders of covers differ


def test_a_masked_entry_does_not_affect_its_own_reconstruction() -> None:
    """Check that there is no identity shortcut: the reconstruction of an entry does not depend on its value."""
    analyzer = BlockMaskedReconstruction()
    normals = VectorFeatures(torch.randn(200, 1, 6, generator=generator()))
    analyzer.fit(normals, FitContext(training=OptimizerSettings(steps=50, batch_size=64)))
    changed = normals.vectors.clone()
    changed[:, :, 2] += 5.0
    before = analyzer.score(normals).reconstruction
    after = analyzer.score(VectorFeatures(changed)).reconstruction
    assert before is not None
    assert after is not None
    assert torch.equal(before[:, :, 2], after[:, :, 2])
    assert not torch.equal(before[:, :, 0], after[:, :, 0])


def test_a_patch_unlike_its_neighbours_scores_highest() -> None:
    """Give each image its own level, so that every patch alone is normal."""
    levels = torch.randn(120, 1, 1, generator=generator()).expand(120, 64, 4)
    images = PatchFeatures(levels + 0.1 * torch.randn(120, 64, 4, generator=generator(1)), grid=(8, 8))
    analyzer = BlockMaskedReconstruction()
    analyzer.fit(images.at(slice(0, 100)), FitContext(training=OptimizerSettings(steps=72, batch_size=32)))
    odd = images.at(slice(100, 120))
    vectors = odd.vectors.clone()
    vectors[:, 27] = -vectors[:, 27] + torch.where(vectors[:, 27].abs() < 0.7, 1.5, 0.0)
    maps = analyzer.score(PatchFeatures(vectors, grid=(8, 8))).maps
    assert maps is not None
    assert (maps.flatten(1).argmax(dim=1) == 27).float().mean() > 0.7


def test_windows_are_scored_by_their_spans() -> None:
    windows = torch.sin(torch.arange(16.0) + 6.0 * torch.rand(200, 1, generator=generator())).unsqueeze(2)
    features = WindowFeatures(windows.flatten(1).unsqueeze(1), windows=windows, surprise_columns=slice(0, 0))
    analyzer = BlockMaskedReconstruction()
    analyzer.fit(features, FitContext(training=OptimizerSettings(steps=60, batch_size=32)))
    broken = windows.clone()
    broken[:, 6:10] *= -1.0
    scores = analyzer.score(
        WindowFeatures(broken.flatten(1).unsqueeze(1), windows=broken, surprise_columns=slice(0, 0))
    ).scores
    assert (scores > analyzer.score(features).scores).float().mean() > 0.8


def test_an_analyzer_fitted_on_windows_refuses_other_features() -> None:
    features = WindowFeatures(torch.zeros(4, 1, 8), windows=torch.zeros(4, 8, 1), surprise_columns=slice(0, 0))
    analyzer = BlockMaskedReconstruction()
    analyzer.fit(features, FitContext(training=OptimizerSettings(steps=2, batch_size=8)))
    with pytest.raises(ValueError, match="windows"):
        analyzer.score(VectorFeatures(features.vectors))
