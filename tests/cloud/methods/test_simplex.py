"""Tests of simplex noise and of its analyzer on rows, windows and grids."""

import pytest
import torch

from cloud.methods import PatchFeatures, WindowFeatures
from cloud.methods.families.simplex import SimplexReconstruction, covariance_root
from cloud.methods.families.simplex_noise import smooth_fields
from cloud.methods.fit_context import FitContext
from shared.diffusion.training import OptimizerSettings


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("rows", "columns"), [(28, 28), (1, 100), (5, 40)])
def test_fields_have_unit_variance_and_zero_mean(rows: int, columns: int) -> None:
    fields = smooth_fields(400, rows, columns, generator())
    assert fields.shape == (400, rows, columns)
    assert fields.square().mean() == pytest.approx(1.0, abs=0.1)
    assert fields.mean() == pytest.approx(0.0, abs=0.05)


def test_near_cells_correlate_and_far_cells_do_not() -> None:
    fields = smooth_fields(200, 28, 28, generator())
    beside = (fields[:, :, 1:] * fields[:, :, :-1]).mean()
    below = (fields[:, 1:] * fields[:, :-1]).mean()
    far = (fields[:, :, 20:] * fields[:, :, :8]).mean()
    assert beside > 0.5
    assert below == pytest.approx(float(beside), abs=0.1)
    assert abs(far) < 0.15


def test_fields_are_independent_and_reproducible() -> None:
    fields = smooth_fields(200, 12, 12, generator(1))
    assert torch.equal(fields, smooth_fields(200, 12, 12, generator(1)))
    assert abs((fields[::2] * fields[1::2]).mean()) < 0.1


def test_row_noise_is_correlated_like_the_normals() -> None:
    rows = torch.randn(2000, 3, generator=generator())
    rows[:, 1] = rows[:, 0]
    root = covariance_root(rows)
    covariance = root @ root.T
    assert covariance[0, 1] == pytest.approx(0.9, abs=0.05)
    assert abs(covariance[0, 2]) < 0.1
    assert covariance.diagonal().mean() == pytest.approx(1.0, abs=1e-4)


def test_grids_and_windows_are_restored_completely() -> None:
    context = FitContext(training=OptimizerSettings(steps=3, batch_size=8))
    images = PatchFeatures(torch.randn(6, 20, 3, generator=generator()), grid=(4, 5))
    windows = WindowFeatures(
        torch.randn(6, 1, 3, generator=generator()),
        windows=torch.randn(6, 12, 2, generator=generator()),
        surprise_columns=slice(0, 0),
    )
    for features in (images, windows):
        analyzer = SimplexReconstruction()
        analyzer.fit(features, context)
        output = analyzer.score(features)
        alone = torch.cat([analyzer.score(one).scores for one in features.blocks(1)])
        assert torch.allclose(output.scores, alone, atol=1e-4)
        again = SimplexReconstruction.from_state(analyzer.state())
        assert torch.allclose(again.score(features).scores, output.scores, atol=1e-6)


def test_a_grid_of_another_size_can_be_scored() -> None:
    analyzer = SimplexReconstruction()
    context = FitContext(training=OptimizerSettings(steps=3, batch_size=8))
    analyzer.fit(PatchFeatures(torch.randn(6, 20, 3, generator=generator()), grid=(4, 5)), context)
    maps = analyzer.score(PatchFeatures(torch.randn(2, 42, 3, generator=generator()), grid=(6, 7))).maps
    assert maps is not None
    assert maps.shape == (2, 6, 7)
