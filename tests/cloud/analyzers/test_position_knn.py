import pytest
import torch
from torch import Tensor

from cloud.analyzers import Features, Workshop
from cloud.analyzers.knn import KNearestNeighbours
from cloud.analyzers.position_knn import PositionNeighbours

DIM = 4


def samples(count: int, seed: int) -> Tensor:
    """(count, 6, DIM): each of the six places has a mean of its own."""
    noise = 0.1 * torch.randn(count, 6, DIM, generator=torch.Generator().manual_seed(seed))
    return noise + 3.0 * torch.randn(6, DIM, generator=torch.Generator().manual_seed(99))


def fitted() -> PositionNeighbours:
    analyzer = PositionNeighbours()
    analyzer.fit(Features(samples(100, 0), (2, 3)), Workshop(seed=1))
    return analyzer


def test_what_is_normal_elsewhere_is_not_normal_here() -> None:
    strange = samples(20, 1)
    strange[:, 2] = strange[:, 5]
    normal, moved = Features(samples(20, 2), (2, 3)), Features(strange, (2, 3))
    output, expected = fitted().score(moved), fitted().score(normal)
    assert output.scores.min() > expected.scores.max()
    assert output.maps is not None
    assert (output.maps.flatten(1).argmax(dim=1) == 2).all()
    blind = KNearestNeighbours()
    blind.fit(Features(samples(100, 0), (2, 3)), Workshop(seed=1))
    assert blind.score(moved).scores.max() < 2 * blind.score(normal).scores.max()


def test_a_score_does_not_depend_on_the_batch() -> None:
    analyzer, vectors = fitted(), samples(9, 3)
    alone = torch.cat([analyzer.score(Features(vector.unsqueeze(0), (2, 3))).scores for vector in vectors])
    torch.testing.assert_close(analyzer.score(Features(vectors, (2, 3))).scores, alone)


def test_stored_and_loaded_it_scores_alike() -> None:
    analyzer, features = fitted(), Features(samples(5, 4), (2, 3))
    again = PositionNeighbours.from_state(analyzer.state())
    torch.testing.assert_close(again.score(features).scores, analyzer.score(features).scores)


def test_samples_of_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="places"):
        fitted().score(Features(samples(2, 5)[:, :4], (2, 2)))


def test_fewer_samples_than_neighbours_are_enough() -> None:
    analyzer = PositionNeighbours()
    analyzer.fit(Features(samples(3, 0), (2, 3)), Workshop())
    assert torch.isfinite(analyzer.score(Features(samples(2, 1), (2, 3))).scores).all()
