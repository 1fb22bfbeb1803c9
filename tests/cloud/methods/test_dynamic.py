"""Tests of dynamic depth, which grows with the distance from the normals."""

import pytest
import torch

from cloud.methods import VectorFeatures
from cloud.methods.families import dynamic
from cloud.methods.families.dynamic import DynamicReconstruction
from cloud.methods.fit_context import FitContext
from shared.diffusion.training import OptimizerSettings


@pytest.fixture(scope="module")
def analyzer() -> DynamicReconstruction:
    normals = VectorFeatures(torch.randn(400, 1, 8, generator=torch.Generator().manual_seed(3)))
    fitted = DynamicReconstruction()
    fitted.fit(normals, FitContext(training=OptimizerSettings(steps=50, batch_size=64)))
    return fitted


def test_depth_follows_the_distance_within_its_range(analyzer: DynamicReconstruction) -> None:
    direction = torch.nn.functional.normalize(torch.ones(1, 8)).unsqueeze(1)
    depths = analyzer.depths(VectorFeatures(direction * torch.tensor([0.0, 5.0, 12.0, 1000.0]).reshape(-1, 1, 1)))
    assert (depths.diff() >= 0).all()
    assert depths[0] < depths[2]
    assert depths[-1] == pytest.approx(dynamic.DEPTH_RANGE[1])


def test_training_rows_get_the_depth_of_fresh_rows(analyzer: DynamicReconstruction) -> None:
    """Check that a normal in the reference, at distance 0 from itself, is not its own neighbour."""
    fresh = VectorFeatures(torch.randn(400, 1, 8, generator=torch.Generator().manual_seed(4)))
    own = VectorFeatures(torch.randn(400, 1, 8, generator=torch.Generator().manual_seed(3)))
    with torch.no_grad():
        fresh_error, own_error = analyzer._errors(fresh).squares.mean(), analyzer._errors_of_normals(own).squares.mean()
    assert float(own_error) == pytest.approx(float(fresh_error), rel=0.2)
