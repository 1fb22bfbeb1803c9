import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from cloud.analyzers.base import Features
from cloud.analyzers.channel_imputation import ChannelImputation
from cloud.analyzers.workshop import Workshop

LENGTH, CHANNELS = 6, 5


def windows(count: int, seed: int) -> Tensor:
    """Normal windows: the first two channels agree up to a little noise, the others go their own ways."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn((count, LENGTH, CHANNELS), generator=generator)
    values[:, :, 1] = values[:, :, 0] + 0.1 * torch.randn((count, LENGTH), generator=generator)
    return values


def features(values: Tensor, observed: Tensor | None = None) -> Features:
    return Features(values.flatten(1).unsqueeze(1), windows=values, windows_observed=observed)


@pytest.fixture(scope="module")
def fitted() -> ChannelImputation:
    analyzer = ChannelImputation()
    analyzer.fit(features(windows(2000, 1)), Workshop())
    return analyzer


def scores(analyzer: ChannelImputation, values: Tensor, observed: Tensor | None = None) -> Tensor:
    return analyzer.score(features(values, observed)).scores


def test_a_broken_relation_between_channels_shows_though_no_value_is_unusual(fitted: ChannelImputation) -> None:
    normal = windows(300, 2)
    broken = normal.clone()
    broken[:, :, 1] = windows(300, 3)[:, :, 1]
    assert (scores(fitted, broken) > scores(fitted, normal).quantile(0.99)).float().mean() > 0.95


def test_missing_values_are_not_evidence(fitted: ChannelImputation) -> None:
    given = windows(400, 4)
    generator = torch.Generator().manual_seed(5)
    observed = torch.rand(given.shape, generator=generator) > 0.3
    hollow = scores(fitted, torch.where(observed, given, 0.0), observed)
    assert torch.isfinite(hollow).all()
    assert hollow.mean() < scores(fitted, given).mean() * 1.1
    nonsense = torch.where(observed, given, 50.0)
    torch.testing.assert_close(scores(fitted, nonsense, observed), hollow)


def test_what_is_left_of_a_broken_window_still_shows(fitted: ChannelImputation) -> None:
    given = windows(100, 6)
    observed = torch.ones_like(given, dtype=torch.bool)
    observed[:, :, 4] = False
    broken = given.clone()
    broken[:, :, 1] *= -1
    assert (scores(fitted, broken, observed) > scores(fitted, given, observed)).float().mean() > 0.95


def test_a_window_without_a_reading_is_as_expected(fitted: ChannelImputation) -> None:
    given = windows(3, 7)
    assert scores(fitted, given, torch.zeros_like(given, dtype=torch.bool)).tolist() == [0.0, 0.0, 0.0]


def test_state_survives_a_file(fitted: ChannelImputation) -> None:
    given = windows(50, 8)
    again = ChannelImputation.from_state(load(save(fitted.state())))
    assert torch.equal(scores(again, given), scores(fitted, given))
    state = fitted.state()
    with pytest.raises(RuntimeError, match="precision"):
        ChannelImputation.from_state({**state, "precision": torch.eye(3)})


def test_vectors_alone_are_windows_of_one_time_point() -> None:
    analyzer = ChannelImputation()
    rows = windows(800, 9)[:, 0]
    analyzer.fit(Features(rows.unsqueeze(1)), Workshop())
    broken = rows.clone()
    broken[:, 1] = -rows[:, 0]
    difference = (
        analyzer.score(Features(broken.unsqueeze(1))).scores - analyzer.score(Features(rows.unsqueeze(1))).scores
    )
    assert difference.median() > 0.5


def test_a_score_does_not_depend_on_the_batch(fitted: ChannelImputation) -> None:
    given = windows(20, 10)
    alone = torch.cat([scores(fitted, given[index : index + 1]) for index in range(20)])
    np.testing.assert_allclose(scores(fitted, given), alone, rtol=1e-5)
