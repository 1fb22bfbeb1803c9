"""Scores of the local corruption head."""

import math

import pytest
import torch

from shared.diffusion.local_corruption import (
    MIN_STEPS,
    TRAINING,
    UNTOUCHED_WEIGHT,
    CorruptedPatches,
    CorruptionHead,
    perturbed_patches,
    train_on_corrupted,
    training_settings,
)
from shared.diffusion.training import OptimizerSettings


def trained(patches: CorruptedPatches, steps: int, fine: int | None = None) -> CorruptionHead:
    torch.manual_seed(0)
    head = CorruptionHead(patches.touched.shape[1], fine, (16, 16))
    settings = OptimizerSettings(steps=steps, batch_size=1024, learning_rate=5e-3)
    train_on_corrupted(head, patches, settings=settings, generator=torch.Generator().manual_seed(0))
    return head


def test_the_score_is_the_log_odds_of_a_patch_being_touched() -> None:
    """Two unit Gaussians one apart: the log odds are x - 1/2, less the weight, for any class balance."""
    generator = torch.Generator().manual_seed(0)
    touched, untouched = (torch.randn(count, 1, generator=generator) for count in (4000, 20_000))
    head = trained(CorruptedPatches(touched + 1.0, untouched), 800)
    x = torch.linspace(-1.0, 2.0, 7)
    with torch.no_grad():
        found = head(x[:, None, None, None]).flatten()
    torch.testing.assert_close(found, x - 0.5 - math.log(UNTOUCHED_WEIGHT), atol=0.35, rtol=0.0)


def test_values_beyond_the_fine_ones_reach_one_of_the_two_networks_only() -> None:
    """The first value is weakly informative, the second fully, but only the second network may see it."""
    generator = torch.Generator().manual_seed(0)
    touched, untouched = (torch.randn(4000, 2, generator=generator) for _ in range(2))
    touched[:, 0] += 1.0
    touched[:, 1] += 6.0
    head = trained(CorruptedPatches(touched, untouched), 300, fine=1)
    surroundings_differ = torch.tensor([[0.0, 0.0], [0.0, 6.0]])[:, :, None, None]
    with torch.no_grad():
        of_fine, of_all = (opinion.flatten() for opinion in head.opinions(surroundings_differ))
    assert of_fine[0] == of_fine[1]
    assert of_all[1] > of_all[0] + 2.0


def test_a_place_is_judged_alike_wherever_it_lies() -> None:
    head = CorruptionHead(5, 3, (8,)).eval()
    details = torch.randn(2, 5, 6, 7)
    torch.testing.assert_close(head(details.flip(2)), head(details).flip(1))


def test_perturbed_vectors_stand_in_for_pixels() -> None:
    normals = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    patches = perturbed_patches(normals, torch.Generator().manual_seed(1))
    torch.testing.assert_close(patches.untouched, normals)
    assert (torch.cdist(patches.touched[:200], normals).min(dim=1).values > 0).float().mean() > 0.95


def test_a_head_survives_its_arrays_and_others_are_refused() -> None:
    head, details = CorruptionHead(5, 3, (8, 4)).eval(), torch.randn(2, 5, 6, 7)
    arrays = dict(sorted(head.to_arrays().items(), reverse=True))  # files keep no order
    again = CorruptionHead.from_arrays(arrays).eval()
    torch.testing.assert_close(again(details), head(details))
    with pytest.raises(ValueError, match="corruption head"):
        CorruptionHead.from_arrays({"of_all.0.weight": torch.zeros(3, 4).numpy()})


def test_one_kind_of_patches_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="one kind is missing"):
        CorruptedPatches(torch.zeros(0, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="do not match"):
        CorruptedPatches(torch.zeros(2, 4), torch.zeros(2, 3))


def test_small_sets_take_fewer_steps() -> None:
    def steps(touched: int) -> int:
        return training_settings(CorruptedPatches(torch.zeros(touched, 2), torch.zeros(3, 2))).steps

    assert steps(10) == MIN_STEPS
    assert MIN_STEPS < steps(25_000) < TRAINING.steps
    assert steps(150_000) == TRAINING.steps
