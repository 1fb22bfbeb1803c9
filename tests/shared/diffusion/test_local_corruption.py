import pytest
import torch

from shared.diffusion import OptimizerSettings
from shared.diffusion.local_corruption import CorruptedMaps, CorruptionHead, perturbed_maps, train_on_corrupted


def trained(maps: CorruptedMaps, steps: int) -> CorruptionHead:
    torch.manual_seed(0)
    head = CorruptionHead(maps.details.shape[1], 16)
    settings = OptimizerSettings(steps=steps, batch_size=512, learning_rate=2e-3)
    train_on_corrupted(head, maps, settings=settings, generator=torch.Generator().manual_seed(0))
    return head


def test_the_score_is_the_log_odds_of_a_patch_being_touched() -> None:
    """Two unit Gaussians one apart: the log odds are x - 1/2, in whatever numbers the two kinds come."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(24_000, 1, 1, 1, generator=generator)
    values[:4000] += 1.0
    touched = (torch.arange(24_000) < 4000).float()[:, None, None]
    head = trained(CorruptedMaps(values, touched), 600)
    x = torch.linspace(-1.0, 2.0, 7)
    with torch.no_grad():
        torch.testing.assert_close(head(x[:, None, None, None]).flatten(), x - 0.5, atol=0.25, rtol=0.0)


def test_a_patch_is_judged_by_its_surroundings() -> None:
    """Vertical lines are normal, and a gap in one is not, although half of all patches look like it."""
    details = torch.zeros(60, 1, 30, 30)
    details[:, :, :, ::4] = 1.0
    touched = torch.zeros(60, 30, 30)
    generator = torch.Generator().manual_seed(0)
    for index in range(40):
        row, column = (
            int(torch.randint(30, (), generator=generator)),
            4 * int(torch.randint(7, (), generator=generator)),
        )
        details[index, 0, row, column], touched[index, row, column] = 0.0, 1.0
    head = trained(CorruptedMaps(details, touched), 300)
    broken = details[-1:].clone()
    broken[0, 0, 11, 12] = 0.0
    with torch.no_grad():
        log_odds = head(broken)[0]
    assert divmod(int(log_odds.argmax()), 30) == (11, 12)
    assert log_odds[11, 12] > 0.0 > log_odds[11, 14]


def test_patches_that_hardly_changed_teach_nothing() -> None:
    touched = torch.zeros(20, 4, 4)
    touched[:10, 1, 1], touched[:10, 2, 2] = 0.9, 0.05
    details = torch.zeros(20, 2, 4, 4)
    details[:, 0] = (touched > 0.1).float()
    details[:, 1] = (touched == 0.05).float()
    head = trained(CorruptedMaps(details, touched), 200)
    with torch.no_grad():
        log_odds = head(details[:1])[0]
    assert log_odds[1, 1] > 2.0
    assert log_odds[0, 3] < -2.0


def test_perturbed_vectors_stand_in_for_pixels() -> None:
    normals = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    maps = perturbed_maps(normals, torch.Generator().manual_seed(1))
    changed = maps.touched.flatten() > 0
    vectors = maps.details.flatten(1)
    torch.testing.assert_close(vectors[~changed], normals)
    assert (torch.cdist(vectors[changed][:200], normals).min(dim=1).values > 0).float().mean() > 0.95


def test_a_head_survives_its_arrays_and_others_are_refused() -> None:
    head, details = CorruptionHead(5, 8), torch.randn(2, 5, 6, 7)
    again = CorruptionHead.from_arrays(head.to_arrays())
    torch.testing.assert_close(again(details), head(details))
    with pytest.raises(ValueError, match="corruption head"):
        CorruptionHead.from_arrays({"layers.0.weight": torch.zeros(3, 4).numpy()})


def test_one_kind_of_patches_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="one kind is missing"):
        CorruptedMaps(torch.zeros(2, 4, 3, 3), torch.zeros(2, 3, 3))
    with pytest.raises(ValueError, match="do not match"):
        CorruptedMaps(torch.zeros(2, 4, 3, 3), torch.zeros(2, 4, 3))
