"""Properties of every trained denoiser."""

import pytest
import safetensors.torch
import torch
from torch import Tensor

from shared.diffusion.denoisers import PreconditionedDenoiser, VectorDenoiser


def test_a_new_denoiser_is_already_exact_for_gaussians(
    denoiser: PreconditionedDenoiser, x: Tensor, generator: torch.Generator
) -> None:
    # EDM's preconditioning alone is the posterior mean of N(0, sigma_data^2).
    made = type(denoiser).initialised(4, sigma_data=0.5, generator=generator, **denoiser.sizes)
    sigma = torch.linspace(0.05, 3.0, 5).reshape(5, *[1] * (x.ndim - 1))
    assert torch.allclose(made(x, sigma), x * 0.25 / (0.25 + sigma**2), atol=1e-6)


def test_a_level_is_one_of_its_sample_however_it_is_shaped(denoiser: PreconditionedDenoiser, x: Tensor) -> None:
    sigma = torch.linspace(0.1, 2.0, 5)
    found = denoiser(x, sigma.unsqueeze(1))
    assert found.shape == x.shape
    assert torch.equal(found, denoiser(x, sigma.reshape(5, *[1] * (x.ndim - 1))))
    assert torch.allclose(denoiser(x, torch.full((1, 1), 0.3)), denoiser(x, torch.full((5, 1), 0.3)), atol=1e-6)


def test_a_sample_is_denoised_as_it_would_be_alone(denoiser: PreconditionedDenoiser, x: Tensor) -> None:
    sigma = torch.linspace(0.1, 2.0, 5).unsqueeze(1)
    alone = torch.cat([denoiser(x[at : at + 1], sigma[at : at + 1]) for at in range(5)])
    assert torch.allclose(denoiser(x, sigma), alone, atol=1e-5)


def test_without_noise_a_sample_stays_as_it_is(denoiser: PreconditionedDenoiser, x: Tensor) -> None:
    assert torch.allclose(denoiser(x, torch.zeros(5, 1)), x)


def test_far_from_the_data_the_denoised_sample_is_never_the_sample(denoiser: PreconditionedDenoiser, x: Tensor) -> None:
    far = 1e4 * x
    denoised = denoiser(far, torch.ones(5, 1))
    assert ((denoised - far).flatten(1).norm(dim=1) > 0.4 * far.flatten(1).norm(dim=1)).all()


def test_the_weighted_loss_is_that_of_a_unit_target(denoiser: PreconditionedDenoiser, x: Tensor) -> None:
    # weight * c_out^2 = 1: an error of the network counts the same at every level.
    level = torch.tensor([0.01, 1.0, 100.0], dtype=torch.float64)
    c_out = level * denoiser.sigma_data / (level**2 + denoiser.sigma_data**2).sqrt()
    assert torch.allclose(denoiser.loss_weight(level) * c_out**2, torch.ones(3, dtype=torch.float64))


def test_state_brings_the_same_denoiser_back_through_a_file(denoiser: PreconditionedDenoiser, x: Tensor) -> None:
    state = safetensors.torch.load(safetensors.torch.save(denoiser.to_state()))
    sigma = torch.full((5, 1), 0.3)
    assert torch.equal(denoiser(x, sigma), type(denoiser).from_state(state)(x, sigma))


def test_initial_weights_come_from_the_generator(denoiser: PreconditionedDenoiser) -> None:
    first, second, other = (
        type(denoiser).initialised(4, sigma_data=1.0, generator=torch.Generator().manual_seed(seed)).to_state()
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["weights.input.weight"], other["weights.input.weight"])


def test_a_foreign_state_is_refused(denoiser: PreconditionedDenoiser) -> None:
    state = denoiser.to_state()
    with pytest.raises(ValueError, match="Not the state"):
        type(denoiser).from_state({**state, "shape": torch.tensor([4, 16])})
    with pytest.raises((KeyError, RuntimeError)):
        type(denoiser).from_state({name: value for name, value in state.items() if "input" not in name})
    with pytest.raises((KeyError, RuntimeError)):
        VectorDenoiser.from_state({"shape": torch.tensor([2, 8, 1]), "sigma_data": torch.ones(1)})
