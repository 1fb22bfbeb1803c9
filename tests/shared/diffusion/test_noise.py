import pytest
import torch

from shared.diffusion.noise import noise_like, seeded_noise


def test_all_samples_share_the_draw_of_one_seed_in_any_batch() -> None:
    shared = noise_like(torch.zeros(6, 4, 2), 5)
    assert shared.shape == (1, 4, 2)
    assert torch.equal(shared, noise_like(torch.ones(1, 4, 2), 5))


def test_a_sample_keeps_its_own_noise_in_any_batch() -> None:
    together = noise_like(torch.zeros(3, 8), [11, 12, 13])
    assert torch.equal(noise_like(torch.zeros(2, 8), [13, 11]), together[[2, 0]])
    assert not torch.equal(together[0], together[1])


def test_steps_and_seeds_draw_independent_standard_noise() -> None:
    x = torch.zeros(1, 10_000)
    source = seeded_noise(x, 3)
    draws = torch.cat([source(0), source(1), noise_like(x, 4), noise_like(x, 3, step=2)])
    assert torch.allclose(torch.cov(draws), torch.eye(4), atol=0.05)
    assert torch.allclose(draws.mean(dim=1), torch.zeros(4), atol=0.04)
    assert torch.equal(source(1), noise_like(x, 3, step=1))


def test_noise_has_the_type_of_the_samples_and_the_same_values_in_each() -> None:
    single, double = (noise_like(torch.zeros(2, 5, dtype=kind), 1) for kind in (torch.float32, torch.float64))
    assert double.dtype == torch.float64
    assert torch.equal(single.double(), double)


def test_seeds_must_be_as_many_as_samples() -> None:
    with pytest.raises(ValueError, match="2 seeds for 3 items"):
        noise_like(torch.zeros(3, 2), [1, 2])
    assert noise_like(torch.empty(0, 2), []).shape == (0, 2)
