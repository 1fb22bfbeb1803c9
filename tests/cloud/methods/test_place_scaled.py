"""Scores of patches are relative to the normals at their place."""

import pytest
import torch
from safetensors.torch import load, save

from cloud.methods import Features, FitContext, KNearestNeighbours, PatchFeatures, PlaceScaled, VectorFeatures


def images(count: int, seed: int) -> Features:
    """Return images with three places: two vary little, the third strongly."""
    vectors = torch.randn(count, 3, 4, generator=torch.Generator().manual_seed(seed))
    return PatchFeatures(vectors * torch.tensor([0.1, 0.1, 3.0])[:, None], grid=(1, 3))


@pytest.fixture(scope="module")
def placed() -> PlaceScaled:
    analyzer = PlaceScaled(KNearestNeighbours())
    analyzer.fit(images(200, 0), FitContext(seed=0))
    return analyzer


def test_a_patch_unusual_only_at_its_place_scores_high(placed: PlaceScaled) -> None:
    odd = images(50, 1)
    odd.vectors[:, 0] = 10.0 * odd.vectors[:, 0].abs() + 1.0
    normal = images(50, 2)
    found = (placed.score(normal).scores.unsqueeze(1) < placed.score(odd).scores).float().mean()
    plain = (placed.inner.score(normal).scores.unsqueeze(1) < placed.inner.score(odd).scores).float().mean()
    assert found > 0.9 > plain


def test_state_survives_a_round_trip_and_names_its_method(placed: PlaceScaled) -> None:
    state = load(save(placed.state()))
    assert PlaceScaled.holds(state)
    assert not PlaceScaled.holds(placed.inner.state())
    again = PlaceScaled.from_state(KNearestNeighbours, state)
    assert again.name == "knn"
    torch.testing.assert_close(again.score(images(5, 3)).scores, placed.score(images(5, 3)).scores)


def test_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no map"):
        PlaceScaled(KNearestNeighbours()).fit(VectorFeatures(torch.randn(50, 1, 4)), FitContext())
