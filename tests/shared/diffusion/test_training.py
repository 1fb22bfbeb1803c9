"""Training loop of denoisers."""

import itertools
import time

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from shared.diffusion.denoisers import Denoiser, ImageDenoiser, VectorDenoiser, WindowDenoiser
from shared.diffusion.schedules import diffuse
from shared.diffusion.training import (
    ExponentialMovingAverage,
    OptimizerSettings,
    denoising_losses,
    fit_denoiser,
    spread,
    time_limited_trainings,
    train,
    train_denoiser,
)
from tests.shared.diffusion.gaussian import GaussianDenoiser


def excess(denoiser: Denoiser, exact: Denoiser, x0: Tensor, sigma: float, generator: torch.Generator) -> float:
    """Return the mean square distance of a denoiser from the exact one, relative to the exact one's error."""
    levels = torch.full((len(x0), 1), sigma)
    x = diffuse(x0, levels, torch.randn(x0.shape, generator=generator))
    with torch.no_grad():
        best = exact(x, levels)
        return float((denoiser(x, levels) - best).square().mean() / (best - x0).square().mean())


def smooth(length: int, reach: float) -> Tensor:
    """Covariance that decays exponentially with the distance between time points."""
    at = torch.arange(length, dtype=torch.float32)
    return torch.exp(-(at.unsqueeze(1) - at).abs() / reach)


def draws(covariance: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, len(covariance), generator=generator) @ torch.linalg.cholesky(covariance).T


def least_squares(module: nn.Linear, generator: torch.Generator) -> Tensor:
    x = torch.randn(64, 2, generator=generator)
    loss: Tensor = (module(x).squeeze(1) - x @ torch.tensor([2.0, -1.0])).square().mean()
    return loss


def test_training_finds_the_solution_and_reports_rising_progress(generator: torch.Generator) -> None:
    module, shares = nn.Linear(2, 1), []
    settings = OptimizerSettings(steps=400, learning_rate=0.05)
    loss = train(module, lambda: least_squares(module, generator), settings, progress=shares.append)
    assert loss < 1e-3
    assert torch.allclose(module.weight, torch.tensor([[2.0, -1.0]]), atol=0.02)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_training_ends_at_its_time_limit_with_the_learning_rate_run_down(generator: torch.Generator) -> None:
    module, steps = nn.Linear(2, 1), itertools.count()

    def loss() -> Tensor:
        next(steps)
        return least_squares(module, generator)

    seconds = itertools.count()
    settings = OptimizerSettings(steps=100_000, max_seconds=300, learning_rate=0.05)
    final = train(module, loss, settings, clock=lambda: float(next(seconds)))
    assert next(steps) == 300
    assert final < 0.01


def test_the_running_mean_settles_between_old_and_new_weights() -> None:
    module = nn.Linear(1, 1)
    nn.init.zeros_(module.weight)
    average = ExponentialMovingAverage(module, decay=0.5)
    nn.init.ones_(module.weight)
    values = []
    for _ in range(6):
        average.update(list(module.parameters()))
        values.append(float(average.average.weight))
    assert values == sorted(values)
    assert 0.9 < values[-1] < 1.0


def test_a_trained_denoiser_comes_near_the_exact_one(
    mean: Tensor, covariance: Tensor, generator: torch.Generator
) -> None:
    factor = torch.linalg.cholesky(covariance)
    normals = (mean + torch.randn(4000, 3, generator=generator, dtype=torch.float64) @ factor.T).float()
    settings = OptimizerSettings(steps=150, batch_size=128)
    denoiser = train_denoiser(normals, (0.2, 2.0), settings, generator=generator)
    exact = GaussianDenoiser(mean.float(), covariance.float())
    for sigma in (0.3, 1.0):
        assert excess(denoiser, exact, normals[:1000], sigma, generator) < 0.1


def test_a_trained_window_denoiser_comes_near_the_exact_one(generator: torch.Generator) -> None:
    covariance = smooth(16, reach=5.0)
    windows = draws(covariance, 2000, generator).unsqueeze(2)
    denoiser = WindowDenoiser.initialised(1, sigma_data=spread(windows), generator=generator, width=16, blocks=4)
    settings = OptimizerSettings(steps=100, batch_size=64, learning_rate=5e-3)
    fit_denoiser(denoiser, windows, (0.2, 2.0), settings, generator=generator)
    exact = GaussianDenoiser(torch.zeros(16), covariance)
    for sigma in (0.3, 1.0):  # at first 0.25 and 0.67
        assert excess(denoiser, exact, windows[:1000], sigma, generator) < 0.05


def test_a_trained_image_denoiser_comes_near_the_exact_one(generator: torch.Generator) -> None:
    covariance = torch.kron(smooth(8, reach=6.0), smooth(8, reach=6.0))
    images = draws(covariance, 1000, generator).reshape(-1, 1, 8, 8)
    denoiser = ImageDenoiser.initialised(1, sigma_data=spread(images), generator=generator, width=8, levels=2)
    settings = OptimizerSettings(steps=80, batch_size=32, learning_rate=5e-3)
    fit_denoiser(denoiser, images, (0.2, 2.0), settings, generator=generator)
    exact = GaussianDenoiser(torch.zeros(64), covariance)
    for sigma in (0.3, 1.0):  # at first 0.8 and 1.5
        assert excess(denoiser, exact, images[:500], sigma, generator) < 0.2


def test_half_precision_trains_as_well_and_leaves_full_weights(generator: torch.Generator) -> None:
    covariance = smooth(6, reach=3.0)
    normals = draws(covariance, 1000, generator)
    seen: list[torch.dtype] = []

    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    settings = OptimizerSettings(steps=150, batch_size=64, learning_rate=3e-3, precision="bfloat16")
    train(module := Watched(6, 1), lambda: module(normals[:8]).float().square().mean(), settings)
    assert set(seen) == {torch.bfloat16}
    denoiser = VectorDenoiser.initialised(6, sigma_data=1.0, generator=generator, width=48, blocks=2)
    fit_denoiser(denoiser, normals, (0.2, 2.0), settings, generator=generator)
    assert {parameter.dtype for parameter in denoiser.parameters()} == {torch.float32}
    assert excess(denoiser, GaussianDenoiser(torch.zeros(6), covariance), normals, 1.0, generator) < 0.15
    with pytest.raises(ValidationError):
        OptimizerSettings(precision="float16")


def test_losses_are_of_one_item_each_and_average_to_the_weighted_error(generator: torch.Generator) -> None:
    x0, noise = torch.randn(2, 3, 5, 2, generator=generator)
    sigma = torch.tensor([0.1, 1.0, 4.0])
    denoiser = WindowDenoiser(2, width=4, blocks=1, sigma_data=0.5)
    together = denoising_losses(denoiser, x0, sigma, noise)
    alone = [denoising_losses(denoiser, x0[at : at + 1], sigma[at], noise[at : at + 1]) for at in range(3)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    error = denoiser(x0 + sigma.reshape(3, 1, 1) * noise, sigma) - x0
    weight = (sigma**2 + 0.25) / (0.5 * sigma) ** 2
    assert torch.allclose(together, weight * error.square().mean(dim=(1, 2)))


def test_training_is_the_same_from_the_same_seed() -> None:
    normals = torch.randn(100, 3, generator=torch.Generator().manual_seed(1))
    first, second = (
        train_denoiser(
            normals, (0.1, 1.0), OptimizerSettings(steps=5), generator=torch.Generator().manual_seed(2)
        ).to_state()
        for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_constant_data_trains_to_finite_weights(generator: torch.Generator) -> None:
    denoiser = train_denoiser(torch.ones(50, 4), (0.1, 1.0), OptimizerSettings(steps=20), generator=generator)
    assert all(torch.isfinite(parameter).all() for parameter in denoiser.parameters())


def test_no_normals_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="at least one normal"):
        train_denoiser(torch.empty(0, 4), (0.1, 1.0), OptimizerSettings(steps=5), generator=generator)


def test_training_leaves_the_thread_count_as_it_was(generator: torch.Generator) -> None:
    torch.set_num_threads(2)
    module, inside = nn.Linear(2, 1), []

    def loss() -> Tensor:
        inside.append(torch.get_num_threads())
        return least_squares(module, generator)

    train(module, loss, OptimizerSettings(steps=1))
    assert inside == [1]
    assert torch.get_num_threads() == 2


def test_trainings_ended_by_the_clock_are_noted_where_it_is_asked(generator: torch.Generator) -> None:
    now = itertools.count()
    short = OptimizerSettings(steps=100, max_seconds=10.0)

    def run(settings: OptimizerSettings) -> None:
        module = nn.Linear(2, 1)
        train(module, lambda: least_squares(module, generator), settings, clock=lambda: float(next(now)))

    run(short)
    with time_limited_trainings() as notes:
        run(short)
        run(OptimizerSettings(steps=5))
    run(short)
    assert notes == ["Linear: 10 of 100 steps in the 10 s allowed"]


def test_what_else_the_machine_does_cuts_no_training_short(generator: torch.Generator) -> None:
    module = nn.Linear(2, 1)

    def waiting_for_its_turn() -> torch.Tensor:
        time.sleep(0.06)
        return least_squares(module, generator)

    with time_limited_trainings() as notes:
        train(module, waiting_for_its_turn, OptimizerSettings(steps=40, max_seconds=2.0))
    assert notes == []
