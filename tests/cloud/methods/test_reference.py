"""Nearest neighbours among the normal vectors, also with missing values."""

import functools

import pytest
import torch
from torch import Tensor

from cloud.methods import ANALYZERS, Features, FitContext, VectorFeatures, reference
from cloud.methods.reference import Reference
from shared.diffusion.training import OptimizerSettings

DIM = 5


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def masked(count: int, generator: torch.Generator, missing: float = 0.2) -> Features:
    vectors = torch.randn(count, 1, DIM, generator=generator)
    observed = torch.rand(vectors.shape, generator=generator) >= missing
    return VectorFeatures(torch.where(observed, vectors, 0.0), observed=observed)


def test_neighbours_equal_a_search_over_all_pairs(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "BLOCK_CELLS", 5000)  # several blocks
    normals, queries = torch.randn(300, 1, DIM, generator=generator), torch.randn(70, 1, DIM, generator=generator)
    found = Reference.drawn(VectorFeatures(normals), generator).nearest(VectorFeatures(queries), 7)
    expected = torch.cdist(queries[:, 0].double(), normals[:, 0].double()).sort(dim=1)
    assert torch.allclose(found.distances, expected.values[:, :7], atol=1e-6)
    assert torch.equal(found.rows, expected.indices[:, :7])


def test_a_row_is_not_its_own_neighbour(generator: torch.Generator) -> None:
    own = Reference(torch.randn(40, DIM, generator=generator))
    found = own.nearest_within(39)
    assert found.rows.shape == (40, 39)
    assert (found.rows != torch.arange(40).unsqueeze(1)).all()


def test_distances_over_observed_entries_are_scaled_to_all_entries(generator: torch.Generator) -> None:
    normals = torch.randn(100, 1, DIM, generator=generator)
    queries = masked(20, generator)
    assert queries.observed is not None
    found = Reference.drawn(VectorFeatures(normals), generator).nearest(queries, 3)
    for row, vector, known in zip(found.distances, queries.vectors[:, 0], queries.observed[:, 0], strict=True):
        squares = (normals[:, 0, known] - vector[known]).square().sum(dim=1).double() * DIM / max(int(known.sum()), 1)
        assert torch.allclose(row, squares.sqrt().sort().values[:3], atol=1e-5)


def test_a_reference_row_with_few_values_is_never_nearest(generator: torch.Generator) -> None:
    normals = masked(200, generator, missing=0.0)
    assert normals.observed is not None
    normals.observed[0, 0, 1:] = False
    normals.vectors[0, 0, 1:] = 0.0
    found = Reference.drawn(normals, generator).nearest(VectorFeatures(normals.vectors[1:]), 1)
    assert (found.rows == torch.arange(1, 200).unsqueeze(1)).all()


def test_a_large_normal_set_is_sampled(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "MAX_REFERENCE", 50)
    normals = torch.arange(400.0).reshape(400, 1, 1)
    drawn = Reference.drawn(VectorFeatures(normals), generator).vectors.flatten()
    assert len(set(drawn.tolist())) == 50
    assert drawn.max() > 200


@functools.cache
def shared_context() -> FitContext:
    """Return the context of all fits: methods that are fitted on the same normals share their denoiser."""
    return FitContext(seed=1, training=OptimizerSettings(steps=100, batch_size=128))


@functools.cache
def shared_normals() -> Features:
    return masked(300, torch.Generator().manual_seed(4))


ON_THE_DENOISER = ("score_norm", "denoising_likelihood")
WITHOUT_NETWORK = ["knn", "time_estimation", "quantile_time_estimation", "lof", "pca", "isolation_forest"]
NAMES = [*WITHOUT_NETWORK, "dte_c", "dte_c_published", "dte_ig", *ON_THE_DENOISER]


@pytest.mark.parametrize("name", NAMES)
def test_the_substitute_of_a_missing_value_does_not_count(name: str, generator: torch.Generator) -> None:
    normals, queries = shared_normals(), masked(40, generator)
    assert normals.observed is not None
    assert queries.observed is not None

    def filled(features: Features, value: float) -> Features:
        assert features.observed is not None
        return VectorFeatures(torch.where(features.observed, features.vectors, value), observed=features.observed)

    if name in (
        "score_norm",
        "denoising_likelihood",
    ):  # its shared denoiser gets only the vectors, where missing values must be 0
        normals_filled, queries_filled = normals, queries
    else:
        normals_filled, queries_filled = filled(normals, 7.0), filled(queries, -9.0)
    one, other = ANALYZERS[name](), ANALYZERS[name]()
    one.fit(normals, shared_context())
    other.fit(normals_filled, shared_context())
    scores = one.score(queries).scores
    assert torch.isfinite(scores).all()
    assert torch.allclose(other.score(queries_filled).scores, scores, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_missing_values_neither_raise_scores_nor_hide_anomalies(name: str, generator: torch.Generator) -> None:
    analyzer = ANALYZERS[name]()
    analyzer.fit(masked(600, generator, missing=0.0), shared_context())
    whole = analyzer.score(masked(300, generator, missing=0.0)).scores
    limit = whole.quantile(0.95)
    part = masked(300, generator, missing=0.3)
    assert (analyzer.score(part).scores > limit).float().mean() < 0.15
    assert part.observed is not None
    far = VectorFeatures(torch.where(part.observed, part.vectors + 6.0, 0.0), observed=part.observed)
    seen = part.observed.any(dim=2).flatten()
    assert (analyzer.score(far).scores[seen] > limit).float().mean() > 0.8


@pytest.mark.parametrize("name", [*WITHOUT_NETWORK, *ON_THE_DENOISER])
def test_a_sample_without_observed_values_has_a_low_score(name: str) -> None:
    analyzer = ANALYZERS[name]()
    normals = shared_normals()
    analyzer.fit(normals, shared_context())
    empty = VectorFeatures(torch.zeros(2, 1, DIM), observed=torch.zeros(2, 1, DIM, dtype=torch.bool))
    scores: Tensor = analyzer.score(empty).scores
    assert torch.isfinite(scores).all()
    assert (scores < analyzer.score(normals).scores.quantile(0.9)).all()
