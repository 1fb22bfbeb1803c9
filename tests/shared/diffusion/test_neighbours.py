"""Nearest neighbours equal a full search."""

import pytest
import torch

from shared.diffusion import neighbours
from shared.diffusion.neighbours import nearest_distances


def test_distances_are_those_of_a_full_search(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, reference = torch.randn(37, 5, generator=generator), torch.randn(80, 5, generator=generator)
    monkeypatch.setattr(neighbours, "BLOCK_CELLS", 800)  # several blocks
    expected = torch.cdist(queries, reference).sort(dim=1).values[:, :4]
    assert torch.allclose(nearest_distances(queries, reference, 4), expected, atol=1e-5)


def test_equal_vectors_are_at_distance_zero_however_far_out(generator: torch.Generator) -> None:
    reference = 1e4 + torch.randn(50, 8, generator=generator)
    assert (nearest_distances(reference, reference, 1) == 0).all()


def test_a_vector_is_not_its_own_neighbour_when_left_out(generator: torch.Generator) -> None:
    reference = torch.randn(30, 3, generator=generator)
    left_out = nearest_distances(reference, reference, 2, own_rows=torch.arange(30))
    assert torch.equal(left_out, nearest_distances(reference, reference, 3)[:, 1:])


def test_duplicates_of_a_vector_are_its_neighbours() -> None:
    reference = torch.zeros(4, 2)
    assert (nearest_distances(reference, reference, 3, own_rows=torch.arange(4)) == 0).all()


def test_a_small_reference_repeats_its_farthest() -> None:
    distances = nearest_distances(torch.zeros(1, 1), torch.tensor([[1.0], [2.0]]), 4)
    assert distances.tolist() == [[1.0, 2.0, 2.0, 2.0]]


def test_no_queries_and_no_reference() -> None:
    assert nearest_distances(torch.empty(0, 3), torch.zeros(5, 3), 2).shape == (0, 2)
    with pytest.raises(ValueError, match="neighbours need more than"):
        nearest_distances(torch.zeros(1, 3), torch.empty(0, 3), 2)
