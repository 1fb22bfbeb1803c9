"""Channel imputation scores broken relations between channels."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from cloud.methods import VectorFeatures
from cloud.methods.defaults.channel_imputation import ChannelImputation
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from cloud.modalities import vector_modality
from shared.bundle import InputSpec
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from shared.preprocessing import Preprocessor

LENGTH, CHANNELS = 6, 5
SPEC = InputSpec(channels=tuple("abcde"), window_length=LENGTH, window_stride=1, missing=True)


def windows(count: int, seed: int) -> NDArray[np.float64]:
    """Return normal windows whose first two channels agree up to small noise; the others are independent."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, LENGTH, CHANNELS))
    values[:, :, 1] = values[:, :, 0] + 0.1 * rng.normal(size=(count, LENGTH))
    return values


@pytest.fixture(scope="module")
def preprocessor() -> Preprocessor:
    return fit_preprocessor(Modality.SERIES, windows(2000, 1), SPEC)


def features(preprocessor: Preprocessor, values: NDArray[np.float64]) -> Features:
    inputs = preprocessor.prepare(values).inputs
    return vector_modality(preprocessor.modality).vector_features(inputs, preprocessor, torch.device("cpu"))


def scores(preprocessor: Preprocessor, values: NDArray[np.float64]) -> Tensor:
    analyzer = ChannelImputation()
    analyzer.fit(features(preprocessor, windows(50, 11)), FitContext())
    stored = ChannelImputation.from_state(load(save(analyzer.state())))
    asked = features(preprocessor, values)
    assert torch.equal(stored.score(asked).scores, analyzer.score(asked).scores)
    return stored.score(asked).scores


def test_a_broken_relation_between_usual_values_raises_the_score(preprocessor: Preprocessor) -> None:
    normal = windows(300, 2)
    broken = normal.copy()
    broken[:, :, 1] = windows(300, 3)[:, :, 1]
    assert (scores(preprocessor, broken) > scores(preprocessor, normal).quantile(0.99)).float().mean() > 0.95


def test_missing_values_do_not_raise_the_score(preprocessor: Preprocessor) -> None:
    given = windows(400, 4)
    hollow = np.where(np.random.default_rng(5).random(given.shape) > 0.3, given, np.nan)
    hollow_scores = scores(preprocessor, hollow)
    assert torch.isfinite(hollow_scores).all()
    assert hollow_scores.mean() < scores(preprocessor, given).mean() + 0.1


def test_a_broken_window_with_gaps_still_has_a_high_score(preprocessor: Preprocessor) -> None:
    given = windows(100, 6)
    given[:, :, 4] = np.nan
    broken = given.copy()
    broken[:, :, 1] *= -1
    assert (scores(preprocessor, broken) > scores(preprocessor, given)).float().mean() > 0.95


def test_a_channel_with_an_unreliable_relation_counts_less() -> None:
    """Break the relation of channels 3 and 4 in one normal window of ten, and that of channels 1 and 2 never."""
    normal = windows(3000, 7)
    normal[:, :, 3] = normal[:, :, 2] + 0.1 * normal[:, :, 3]
    normal[::10, :, 3] *= -1
    fickle = fit_preprocessor(Modality.SERIES, normal[:2800], SPEC)
    often, never = normal[2801:2810].copy(), normal[2801:2810].copy()
    often[:, :, 3] *= -1
    never[:, :, 1] *= -1
    assert (scores(fickle, never) > scores(fickle, often)).all()


def test_mode_inputs_do_not_raise_the_score() -> None:
    spec = InputSpec(channels=(*"abcde", "mode"), window_length=LENGTH, mode_channel="mode", modes=(0.0, 1.0))
    given = np.concatenate([windows(500, 8), np.zeros((500, LENGTH, 1))], axis=2)
    given[::2, :, 5] = 1.0
    with_modes = fit_preprocessor(Modality.SERIES, given, spec)
    other = given.copy()
    other[:, :, 5] = 1.0 - given[:, :, 5]
    assert torch.equal(scores(with_modes, given), scores(with_modes, other))


def test_vectors_are_windows_of_one_time_point() -> None:
    analyzer = ChannelImputation()
    rows = torch.from_numpy(windows(800, 9)[:, 0]).float()
    analyzer.fit(VectorFeatures(rows.unsqueeze(1)), FitContext())
    broken = rows.clone()
    broken[:, 1] = -rows[:, 0]
    before, after = (analyzer.score(VectorFeatures(values.unsqueeze(1))).scores for values in (rows, broken))
    assert (after - before).median() > 0.5
    again = ChannelImputation.from_state(load(save(analyzer.state())))
    assert torch.equal(again.score(VectorFeatures(broken.unsqueeze(1))).scores, after)
    with pytest.raises(RuntimeError, match="precision"):
        ChannelImputation.from_state({**analyzer.state(), "precision": torch.eye(3)})
