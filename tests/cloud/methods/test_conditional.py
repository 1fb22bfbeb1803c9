"""Tests of conditional reconstruction, where a sample may be normal in one mode and anomalous in another."""

import pytest
import torch

from cloud.methods import VectorFeatures
from cloud.methods.families.conditional import ConditionalReconstruction, embeddings
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from shared.diffusion.training import OptimizerSettings

OFFSET = torch.tensor([1.5, -1.5, 0.0, 0.0])


def features(count: int, seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    modes = torch.randint(2, (count,), generator=generator) * 7 + 3  # modes 3 and 10
    centres = torch.where((modes == 3).unsqueeze(1), OFFSET, -OFFSET)
    return VectorFeatures((centres + 0.3 * torch.randn(count, 4, generator=generator)).unsqueeze(1), modes=modes)


@pytest.fixture(scope="module")
def analyzer() -> ConditionalReconstruction:
    fitted = ConditionalReconstruction()
    fitted.fit(features(600, 1), FitContext(training=OptimizerSettings(steps=180, batch_size=64)))
    return fitted


def test_a_sample_of_the_other_mode_scores_higher(analyzer: ConditionalReconstruction) -> None:
    queries = features(200, 2)
    assert queries.modes is not None
    swapped = VectorFeatures(queries.vectors, modes=13 - queries.modes)
    higher = analyzer.score(swapped).scores > analyzer.score(queries).scores
    assert higher.float().mean() > 0.95


def test_an_unknown_mode_gets_the_mean_embedding(analyzer: ConditionalReconstruction) -> None:
    queries = features(3, 2)
    embedded = analyzer.condition(VectorFeatures(queries.vectors, modes=torch.tensor([3, 5, 99])))
    mean = (embedded[0] + analyzer.condition(VectorFeatures(queries.vectors[:1], modes=torch.tensor([10])))[0]) / 2
    assert torch.allclose(embedded[1], mean)
    assert torch.allclose(embedded[2], mean)
    assert torch.allclose(analyzer.condition(VectorFeatures(queries.vectors))[0], mean)


def test_the_state_contains_the_modes(analyzer: ConditionalReconstruction) -> None:
    queries = features(50, 2)
    again = ConditionalReconstruction.from_state(analyzer.state())
    assert torch.equal(again.score(queries).scores, analyzer.score(queries).scores)


def test_the_denoiser_is_shared_without_modes() -> None:
    plain = VectorFeatures(features(50, 1).vectors)
    context = FitContext(training=OptimizerSettings(steps=20, batch_size=32))
    fitted = ConditionalReconstruction()
    fitted.fit(plain, context)
    assert fitted._trained() is context.denoiser(plain.flat)


@pytest.mark.parametrize("modes", [2, 16, 40])
def test_embeddings_have_unit_size_and_differ(modes: int) -> None:
    rows = embeddings(modes, torch.Generator().manual_seed(0))
    assert rows.square().mean() == pytest.approx(1.0, abs=0.2)
    assert len(torch.unique(rows, dim=0)) == modes
