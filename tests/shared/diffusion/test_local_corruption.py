import pytest
import torch

from shared.diffusion import OptimizerSettings, TimeEstimationHead
from shared.diffusion.local_corruption import CorruptedPatches, perturbed_patches, train_on_corrupted


def test_the_score_is_the_log_odds_of_a_patch_being_touched() -> None:
    """Two unit Gaussians one apart: the log odds are x - 1/2, in whatever numbers the two kinds come."""
    generator = torch.Generator().manual_seed(0)
    touched, untouched = torch.randn(4000, 1, generator=generator) + 1.0, torch.randn(20_000, 1, generator=generator)
    torch.manual_seed(0)
    head = TimeEstimationHead(1, (32,))
    settings = OptimizerSettings(steps=600, batch_size=512)
    train_on_corrupted(head, CorruptedPatches(touched, untouched), settings=settings, generator=generator)
    x = torch.linspace(-1.0, 2.0, 7)
    with torch.no_grad():
        torch.testing.assert_close(head(x.unsqueeze(1)), x - 0.5, atol=0.25, rtol=0.0)


def test_perturbed_vectors_stand_in_for_pixels() -> None:
    normals = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    patches = perturbed_patches(normals, torch.Generator().manual_seed(1))
    torch.testing.assert_close(patches.untouched, normals)
    distances = torch.cdist(patches.touched[:200], normals).min(dim=1).values
    assert (distances > 0).float().mean() > 0.95


def test_one_kind_of_patches_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="one kind is missing"):
        CorruptedPatches(torch.zeros(0, 4), torch.zeros(3, 4))
