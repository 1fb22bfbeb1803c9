"""One small denoiser of each kind, with non-zero weights in every layer, and inputs for it."""

import pytest
import torch
from torch import Tensor

from shared.diffusion.denoisers import ImageDenoiser, PreconditionedDenoiser, VectorDenoiser, WindowDenoiser, initialise

KINDS = {
    "vector": (VectorDenoiser, {"width": 16, "blocks": 2}, (4,)),
    "window": (WindowDenoiser, {"width": 16, "blocks": 2}, (9, 4)),
    "image": (ImageDenoiser, {"width": 8, "levels": 3}, (4, 9, 12)),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def denoiser(kind: str, generator: torch.Generator) -> PreconditionedDenoiser:
    made = KINDS[kind][0](4, sigma_data=0.7, **KINDS[kind][1])
    initialise(made, generator)
    return made.eval().requires_grad_(False)


@pytest.fixture
def x(kind: str, generator: torch.Generator) -> Tensor:
    return torch.randn(5, *KINDS[kind][2], generator=generator)
