"""Test of one-step reconstruction, which calls the denoiser twice per draw."""

import torch

from cloud.methods import VectorFeatures
from cloud.methods.families.one_step import OneStepReconstruction
from cloud.methods.fit_context import FitContext
from cloud.methods.restoration import DRAWS
from shared.diffusion.training import OptimizerSettings


def test_a_draw_calls_the_denoiser_twice() -> None:
    normals = VectorFeatures(torch.randn(100, 1, 4, generator=torch.Generator().manual_seed(3)))
    context = FitContext(training=OptimizerSettings(steps=20, batch_size=32))
    analyzer = OneStepReconstruction()
    analyzer.fit(normals, context)
    levels: list[float] = []
    handle = context.denoiser(normals.flat).register_forward_hook(lambda _, args, __: levels.append(float(args[1][0])))
    analyzer.score(normals)
    handle.remove()
    assert len(levels) == 2 * DRAWS
    assert len(set(levels)) == 2
