"""Perturbed windows for the training of series screeners."""

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.training.samples.perturbed_windows import channel_units, perturb_windows, perturbed_inputs
from shared.bundle import InputSpec
from shared.diffusion.distillation import DistillationSettings, distill_head
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.modalities import fit_preprocessor
from shared.modality import Modality

LENGTH, CHANNELS = 8, 4
SPEC = InputSpec(channels=("a", "b", "c", "still"), window_length=LENGTH, window_stride=1, missing=True)


def normal_windows(count: int = 400) -> NDArray[np.float64]:
    """Return windows with two correlated channels, an independent one at another scale, and a constant one."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(count, LENGTH, CHANNELS))
    values[:, :, 1] = values[:, :, 0] + 0.1 * values[:, :, 1]
    values[:, :, 2] = 500.0 + 20.0 * values[:, :, 2]
    values[:, :, 3] = 7.0
    return values


def test_windows_are_changed_in_many_ways_and_some_stay_unchanged() -> None:
    given = normal_windows()
    made = perturb_windows(given, 3000, np.random.default_rng(1), channel_units(given))
    assert made.shape == (3000, LENGTH, CHANNELS)
    assert np.isfinite(made).all()
    known = {row.tobytes() for row in given.round(6)}
    as_they_were = np.mean([row.tobytes() in known for row in made.round(6)])
    assert 0.03 < as_they_were < 0.2
    assert 0.05 < (made[:, :, 3] != 7.0).any(axis=1).mean() < 0.95
    sizes = np.abs(made[:, :, 2] - 500.0).max(axis=1) / 20.0
    assert (sizes > 20).any()
    assert np.median(sizes) < 5


def test_missing_and_constant_values_stay_unchanged() -> None:
    given = normal_windows()
    given[:, :, 3] = np.repeat(np.arange(400) % 3, LENGTH).reshape(400, LENGTH)
    given[::2, 2:5, 0] = np.nan
    made = perturb_windows(given, 2000, np.random.default_rng(2), channel_units(given), fixed=[3])
    assert np.isin(made[:, :, 3].round(9), (0.0, 1.0, 2.0)).all()
    missing = np.isnan(made)
    assert not missing[:, :, 1:].any()
    assert 0.4 < missing[:, 2:5, 0].all(axis=1).mean() < 0.6
    assert not missing[:, [0, 1, 5, 6, 7], 0].any()


def test_perturbed_windows_teach_what_separately_perturbed_inputs_do_not() -> None:
    """Use a teacher that measures the distance of the window; a jump of one reading moves several inputs."""
    given = normal_windows(1500)
    preprocessor = fit_preprocessor(Modality.SERIES, given, SPEC)
    inputs = torch.from_numpy(preprocessor.prepare(given).inputs)
    jumped = normal_windows(1800)[1500:]
    jumped[:, :, 0] += np.linspace(0.1, 8.0, 300)[:, np.newaxis]
    seen = torch.from_numpy(preprocessor.prepare(jumped).inputs)

    def teacher(vectors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return vectors.square().sum(dim=1).log1p()

    def error(own: bool) -> float:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            head = TimeEstimationHead(inputs.shape[1], (64, 64))
        distill_head(
            head,
            inputs,
            settings=DistillationSettings(steps=600, batch_size=256, perturbed=8000),
            generator=torch.Generator().manual_seed(0),
            teacher=teacher,
            perturbation=perturbed_inputs(preprocessor, given) if own else None,
        )
        with torch.no_grad():
            return float((head(seen) - teacher(seen, torch.zeros(len(seen)))).square().mean())

    assert error(own=True) < 0.5 * error(own=False)
