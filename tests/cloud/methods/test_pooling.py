"""Scores of images are pooled from those of their patches."""

from itertools import pairwise

import pytest
import torch

from cloud.methods.pooling import TILE_OVERLAP, TILE_SIDE, PlaceScale, image_scores, peak_scores, tiles_of


def test_one_bad_patch_and_many_slightly_bad_ones_both_raise_the_score() -> None:
    images = torch.zeros(3, 25, 40)
    images[1, 3, 17] = 5.0
    images[2, :12] = 1.0
    normal, spot, dark = image_scores(images)
    assert normal == 0.0
    assert spot > 1.0
    assert dark > 0.5


def test_the_score_is_the_mean_over_two_shares_of_the_patches() -> None:
    scores = torch.arange(1000.0).flip(0).view(1, 25, 40)
    torch.testing.assert_close(image_scores(scores), torch.tensor([(999.0 + 994.5) / 2]))
    torch.testing.assert_close(image_scores(torch.tensor([[[3.0, 1.0]]])), torch.tensor([(3.0 + 2.0) / 2]))


def test_the_amount_of_detail_does_not_change_the_score() -> None:
    """Compare two normal boards with equal worst places, one with twice the tracks."""
    few, many = torch.zeros(2, 40, 50)
    few[:10], many[:20] = 1.0, 1.0
    assert image_scores(few[None]) == image_scores(many[None])


def test_places_with_different_scores_are_scaled_separately() -> None:
    generator = torch.Generator().manual_seed(0)
    usual, spread = torch.linspace(-5, 5, 60), torch.linspace(0.2, 3.0, 60)
    normal = usual + spread * torch.randn(100, 60, generator=generator)
    places = PlaceScale.fit(normal).standardised(usual + spread * torch.randn(500, 60, generator=generator))
    assert places.mean(dim=0).abs().max() < 0.5
    assert 0.7 < places.std(dim=0).min() < places.std(dim=0).max() < 1.4


def test_places_that_differ_only_by_chance_share_one_scale() -> None:
    """Check that means per place are not subtracted for few images without a common layout: they are noise."""
    normal = torch.randn(10, 400, generator=torch.Generator().manual_seed(1))
    scale = PlaceScale.fit(normal)
    assert scale.mean.std() < 0.25 * normal.mean(dim=0).std()
    assert scale.deviation.std() < 0.1


def test_a_constant_background_does_not_decide_the_score() -> None:
    generator = torch.Generator().manual_seed(2)
    normal = torch.randn(60, 100, generator=generator)
    normal[:, :30] = 0.5
    scale = PlaceScale.fit(normal)
    usual, speck, defect = torch.randn(3, 100, generator=torch.Generator().manual_seed(3))
    for image in (usual, speck, defect):
        image[:30] = 0.5
    speck[:30] += 0.02
    defect[60] += 8.0
    of_usual, of_speck, of_defect = image_scores(
        scale.standardised(torch.stack([usual, speck, defect])).view(3, 10, 10)
    )
    assert of_defect > of_usual + 1
    assert of_defect > of_speck + 1


@pytest.mark.parametrize("shape", [(1, 5), (2, 40), (40, 1), (40, 2)])
def test_little_or_constant_data_gives_finite_scores(shape: tuple[int, int]) -> None:
    for normal in (torch.zeros(shape), torch.randn(shape)):
        scale = PlaceScale.fit(normal)
        assert torch.isfinite(scale.standardised(torch.full((1, shape[1]), 3.0))).all()


def test_three_clearly_anomalous_patches_suffice_for_any_image_size() -> None:
    small, large = torch.zeros(1, 5, 8), torch.zeros(1, 200, 200)
    small[0, 0, :4] = large[0, 0, :4] = torch.tensor([9.0, 7.0, 5.0, 4.0])
    torch.testing.assert_close(peak_scores(small), torch.tensor([7.0]))
    torch.testing.assert_close(peak_scores(large), torch.tensor([7.0]))
    torch.testing.assert_close(peak_scores(torch.tensor([[[3.0, 1.0]]])), torch.tensor([2.0]))


@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 1), (80, 80), (40, 160), (81, 80), (160, 160), (256, 256), (20, 700)]
)
def test_tiles_cover_every_patch_and_overlap(rows: int, columns: int) -> None:
    covered = torch.zeros(rows, columns, dtype=torch.int64)
    tiles = list(tiles_of(rows, columns))
    for down, across in tiles:
        covered[down, across] += 1
    assert covered.min() == 1
    shapes = {tuple(covered[tile].shape) for tile in tiles}
    assert len(shapes) == 1
    if rows * columns <= TILE_SIDE**2:
        assert tiles == [(slice(0, rows), slice(0, columns))]
        return
    assert max(max(shape) for shape in shapes) == TILE_SIDE
    for first, second in pairwise(sorted({across.start for _, across in tiles})):
        assert first + TILE_SIDE - second >= TILE_OVERLAP


def test_a_scratch_counts_equally_in_large_and_small_images() -> None:
    generator = torch.Generator().manual_seed(5)
    small = torch.rand(1, 80, 80, generator=generator)
    large = torch.rand(1, 256, 256, generator=generator)
    small[0, 40, 30:40] = large[0, 200, 100:110] = 5.0
    assert abs(float(image_scores(small) - image_scores(large))) < 0.05
