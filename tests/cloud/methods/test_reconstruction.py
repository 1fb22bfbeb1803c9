"""Tests of partial diffusion: agreement of the solvers on one step, and stored settings."""

import pytest
import torch

from cloud.methods import VectorFeatures
from cloud.methods.families.reconstruction import DdimReconstruction, DdpmReconstruction, Reconstruction
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from shared.diffusion.training import OptimizerSettings


@pytest.fixture(scope="module")
def normals() -> Features:
    return VectorFeatures(torch.randn(300, 1, 4, generator=torch.Generator().manual_seed(3)))


@pytest.fixture(scope="module")
def context(normals: Features) -> FitContext:
    shared = FitContext(training=OptimizerSettings(steps=100, batch_size=64))
    shared.denoiser(normals.flat)
    return shared


def test_all_solvers_take_the_same_single_step(normals: Features, context: FitContext) -> None:
    """Check that a single step of every solver gives the expected clean sample."""
    restored = []
    for kind in (Reconstruction, DdimReconstruction, DdpmReconstruction):
        analyzer = kind(steps=1, draws=64)
        analyzer.fit(normals, context)
        restored.append(analyzer.score(normals).reconstruction)
    assert restored[0] is not None
    for other in restored[1:]:
        assert other is not None
        assert (restored[0] - other).abs().mean() < 0.1  # the noise draws differ


def test_solvers_differ_over_several_steps(normals: Features, context: FitContext) -> None:
    scores = []
    for kind in (Reconstruction, DdimReconstruction, DdpmReconstruction):
        analyzer = kind(steps=4)
        analyzer.fit(normals, context)
        scores.append(analyzer.score(normals).scores)
    assert not torch.allclose(scores[0], scores[1], atol=1e-3)
    assert not torch.allclose(scores[1], scores[2], atol=1e-3)


@pytest.mark.parametrize("kind", [Reconstruction, DdpmReconstruction])
def test_the_state_contains_the_number_of_steps(
    kind: type[Reconstruction], normals: Features, context: FitContext
) -> None:
    analyzer = kind(steps=20, depth_sigma=0.5, draws=2)
    analyzer.fit(normals, context)
    again = kind.from_state(analyzer.state())
    assert torch.equal(again.score(normals).scores, analyzer.score(normals).scores)


@pytest.mark.parametrize(("steps", "draws"), [(1, 2), (5, 4)])
def test_a_draw_calls_the_denoiser_once_per_step(
    steps: int, draws: int, normals: Features, context: FitContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyzer = Reconstruction(steps=steps, draws=draws)
    analyzer.fit(normals, context)
    calls = []
    denoiser = context.denoiser(normals.flat)
    handle = denoiser.register_forward_hook(lambda *_: calls.append(1))
    analyzer.score(normals)
    handle.remove()
    assert len(calls) == steps * draws
