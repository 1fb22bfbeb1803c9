"""What every analyzer must do, run against each."""

from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from cloud.analyzers import (
    ANALYZERS,
    Analyzer,
    Features,
    Workshop,
    isolation_forest,
    noised,
    pca,
    reference,
    restoration,
    score_norm,
)
from cloud.analyzers.base import from_patch_scores
from shared.diffusion import OptimizerSettings

DIM = 6


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


@pytest.fixture(params=list(ANALYZERS))
def analyzer(request: pytest.FixtureRequest) -> Analyzer:
    return ANALYZERS[request.param]()


def workshop() -> Workshop:
    return Workshop(seed=2, training=OptimizerSettings(steps=150, batch_size=128))


def rows(count: int, generator: torch.Generator) -> Tensor:
    """Normal vectors: unit spread, with two coordinates that always agree."""
    vectors = torch.randn(count, DIM, generator=generator)
    vectors[:, 1] = vectors[:, 0]
    return vectors


def as_features(vectors: Tensor) -> Features:
    return Features(vectors.unsqueeze(1))


def as_images(count: int, generator: torch.Generator) -> Features:
    return Features(rows(count * 12, generator).reshape(count, 12, DIM), (3, 4))


def test_anomalies_score_higher_than_normals(analyzer: Analyzer, generator: torch.Generator) -> None:
    analyzer.fit(as_features(rows(800, generator)), workshop())
    normal = analyzer.score(as_features(rows(200, generator))).scores
    broken = rows(200, generator)
    broken[:, 1] = -broken[:, 0] + 2.0
    anomalous = analyzer.score(as_features(broken)).scores
    # Trees see one feature at a time; the regression is slow to train, and its training is short here.
    least_auroc = {"isolation_forest": 0.65, "dte_ig": 0.7}.get(analyzer.name, 0.8)
    assert (normal.unsqueeze(1) < anomalous).float().mean() > least_auroc


def test_a_score_does_not_depend_on_the_batch(analyzer: Analyzer, generator: torch.Generator) -> None:
    analyzer.fit(as_features(rows(300, generator)), workshop())
    queries = rows(40, generator)
    together = analyzer.score(as_features(queries)).scores
    reversed_order = analyzer.score(as_features(queries.flip(0))).scores.flip(0)
    alone = torch.cat([analyzer.score(as_features(query.unsqueeze(0))).scores for query in queries])
    assert torch.allclose(together, alone, atol=1e-4)
    assert torch.allclose(together, reversed_order, atol=1e-4)


def test_blocks_change_nothing(analyzer: Analyzer, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    analyzer.fit(as_features(rows(300, generator)), workshop())
    queries = as_features(rows(50, generator))
    whole = analyzer.score(queries)
    for module in (isolation_forest, noised, restoration, score_norm):
        monkeypatch.setattr(module, "BLOCK_ROWS", 7)
    for module in (reference, pca):
        monkeypatch.setattr(module, "BLOCK_CELLS", 60)
    assert torch.allclose(analyzer.score(queries).scores, whole.scores, atol=1e-4)


def test_state_survives_a_file(analyzer: Analyzer, generator: torch.Generator) -> None:
    analyzer.fit(as_features(rows(200, generator)), workshop())
    queries = as_features(rows(20, generator))
    again = type(analyzer).from_state(load(save(analyzer.state())))
    assert torch.equal(again.score(queries).scores, analyzer.score(queries).scores)


def test_the_same_seed_gives_the_same_analyzer(analyzer: Analyzer) -> None:
    normals = as_features(rows(200, torch.Generator().manual_seed(1)))
    other = type(analyzer)()
    for one in (analyzer, other):
        one.fit(normals, workshop())
    assert all(torch.equal(value, other.state()[name]) for name, value in analyzer.state().items())


def test_fitting_reports_rising_progress(analyzer: Analyzer, generator: torch.Generator) -> None:
    shares: list[float] = []
    analyzer.fit(as_features(rows(200, generator)), workshop(), shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_images_get_maps_and_the_score_of_their_worst_patches(analyzer: Analyzer, generator: torch.Generator) -> None:
    analyzer.fit(as_images(40, generator), workshop())
    images = as_images(8, generator)
    images.vectors[3, 7] += 6.0
    output = analyzer.score(images)
    assert output.maps is not None
    assert output.maps.shape == (8, 3, 4)
    assert int(output.maps[3].flatten().argmax()) == 7
    assert int(output.scores.argmax()) == 3
    assert output.reconstruction is None or output.reconstruction.shape == images.vectors.shape


@pytest.mark.parametrize("kind", ["constant", "duplicates", "one constant coordinate", "huge"])
def test_scores_are_finite_whatever_the_data(analyzer: Analyzer, generator: torch.Generator, kind: str) -> None:
    normals = rows(100, generator)
    if kind == "constant":
        normals[:] = 0.0
    elif kind == "duplicates":
        normals[50:] = normals[:50]
    elif kind == "one constant coordinate":
        normals[:, 2] = 0.0
    else:
        normals[0] = 5e3
    analyzer.fit(as_features(normals), workshop())
    queries = torch.cat([normals, torch.zeros(1, DIM), torch.full((1, DIM), 5e3), torch.full((1, DIM), -5e3)])
    output = analyzer.score(as_features(queries))
    assert torch.isfinite(output.scores).all()
    assert output.reconstruction is None or torch.isfinite(output.reconstruction).all()


def test_the_farther_out_the_higher(analyzer: Analyzer, generator: torch.Generator) -> None:
    analyzer.fit(as_features(rows(500, generator)), workshop())
    direction = torch.nn.functional.normalize(torch.randn(1, DIM, generator=generator))
    scores = analyzer.score(as_features(direction * torch.tensor([[8.0], [20.0], [100.0], [1000.0]]))).scores
    # A tree cuts off all that lies beyond the normals' range as early.
    assert (scores.diff() >= 0).all() if analyzer.name == "isolation_forest" else (scores.diff() > 0).all()


def test_an_empty_batch_gives_no_scores(analyzer: Analyzer, generator: torch.Generator) -> None:
    analyzer.fit(as_features(rows(50, generator)), workshop())
    assert analyzer.score(as_features(torch.empty(0, DIM))).scores.shape == (0,)


def test_features_must_fit_their_grid() -> None:
    with pytest.raises(ValueError, match="grid"):
        Features(torch.zeros(2, 5, 3), (2, 3))


def test_an_image_score_is_the_mean_over_its_top_patches() -> None:
    features = Features(torch.zeros(2, 40, 1), (5, 8))
    patch_scores = torch.zeros(2, 40)
    patch_scores[1, :4] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert from_patch_scores(patch_scores.flatten(), features).scores.tolist() == [0.0, 2.5]
