"""Imputation of masked readings scores unpredictable spans."""

from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from cloud.methods import WindowFeatures
from cloud.methods.families import imputation
from cloud.methods.families.imputation import Imputation, grating_masks
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from shared.diffusion.training import OptimizerSettings

LENGTH, CHANNELS = 16, 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def waves(count: int, seed: int) -> Tensor:
    """Return noisy waves (count, LENGTH, CHANNELS) at random phases, with a fixed lag between channels."""
    generator = torch.Generator().manual_seed(seed)
    phase = 6.28 * torch.rand((count, 1, 1), generator=generator)
    time = torch.arange(LENGTH).reshape(1, -1, 1) * 6.28 / 16
    clean = 1.4 * torch.sin(time + phase + torch.arange(CHANNELS))
    return clean + 0.1 * torch.randn(clean.shape, generator=generator)


def features(values: Tensor, observed: Tensor | None = None) -> Features:
    return WindowFeatures(
        values.flatten(1).unsqueeze(1), windows=values, windows_observed=observed, surprise_columns=slice(0, 0)
    )


@pytest.fixture(scope="module")
def fitted() -> Imputation:
    analyzer = Imputation()
    analyzer.fit(features(waves(500, 1)), FitContext(training=OptimizerSettings(steps=200, batch_size=96)))
    return analyzer


def test_each_reading_is_masked_once_in_time_and_once_with_its_channel() -> None:
    assert (1 - grating_masks(10, 4)).sum(dim=0).eq(2).all()
    assert (1 - grating_masks(10, 1)).sum(dim=0).eq(1).all()
    assert (1 - grating_masks(1, 1)).sum(dim=0).eq(1).all()


def test_an_unpredictable_span_scores_higher(fitted: Imputation) -> None:
    normal = waves(60, 2)
    frozen = normal.clone()
    frozen[:, 5:12, 1] = frozen[:, 5:6, 1]
    scores = fitted.score(features(normal)).scores
    assert (fitted.score(features(frozen)).scores > scores).float().mean() > 0.85


def test_missing_readings_do_not_count(fitted: Imputation) -> None:
    given = waves(20, 3)
    observed = torch.ones_like(given, dtype=torch.bool)
    observed[:, 3:6, 0] = False
    one = fitted.score(features(given, observed)).scores
    other = fitted.score(features(torch.where(observed, given, 9.0), observed)).scores
    torch.testing.assert_close(one, other)
    nothing = fitted.score(features(given, torch.zeros_like(observed))).scores
    assert nothing.abs().max() < 1e-5


def test_a_score_does_not_depend_on_batch_or_block_size(fitted: Imputation, monkeypatch: pytest.MonkeyPatch) -> None:
    given = features(waves(20, 4))
    whole = fitted.score(given).scores
    monkeypatch.setattr(imputation, "BLOCK_ROWS", 3)
    torch.testing.assert_close(fitted.score(given).scores, whole, rtol=1e-4, atol=1e-4)


def test_state_survives_a_round_trip_through_a_file(fitted: Imputation) -> None:
    given = features(waves(10, 5))
    again = Imputation.from_state(load(save(fitted.state())))
    assert torch.equal(again.score(given).scores, fitted.score(given).scores)


def test_a_huge_reading_gets_a_finite_score(fitted: Imputation) -> None:
    given = waves(2, 6)
    given[0, 2, 2] = 5e3
    scores = fitted.score(features(given)).scores
    assert torch.isfinite(scores).all()
    assert scores[0] > scores[1]
