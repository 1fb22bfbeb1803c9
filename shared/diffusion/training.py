"""Training loop of all networks, with an exponential moving average of the weights, and training of denoisers."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from shared.diffusion.adam import Adam
from shared.diffusion.denoisers import PreconditionedDenoiser, VectorDenoiser
from shared.diffusion.schedules import diffuse, log_uniform_sigmas, per_item
from shared.settings import Settings

Progress = Callable[[float], None]
"""Function that receives the share of the work done, from 0 to 1."""

_multi_tensor_average: Callable[[float], Callable[..., None]] = get_ema_multi_avg_fn  # PyTorch gives it no types

REPORT_STEPS = 25
LOSS_SHARE = 0.05  # weight of the latest loss in the returned running mean


class ExponentialMovingAverage:
    """Exponential moving average of a network's parameters; it scores better and more steadily than the last step.

    The decay starts low and rises to its limit, so that initial weights do not dominate after a short training.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.average = copy.deepcopy(module).requires_grad_(False)
        self._decay, self._updates = decay, 0
        self._means = list(self.average.parameters())

    def update(self, parameters: list[nn.Parameter]) -> None:
        """Add the parameters of the averaged network after one more step."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        _multi_tensor_average(decay)(self._means, parameters, None)


class OptimizerSettings(Settings):
    """Settings of the training of a network."""

    steps: int = Field(default=1500, ge=1, le=1_000_000, title="Steps", description="gradient steps")
    batch_size: int = Field(default=256, ge=1, le=65_536, title="Batch size", description="vectors per step")
    learning_rate: float = Field(
        default=1e-3, gt=0, le=1, title="Learning rate", description="of Adam, at the first step"
    )
    ema_decay: float = Field(
        default=0.995, ge=0, lt=1, title="Averaging", description="decay of the moving average of the weights"
    )
    max_seconds: float = Field(
        default=600.0,
        gt=0,
        title="Time limit, seconds",
        description="limit on computing time, after which training stops early; longer in wall time on a busy machine",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        title="Precision",
        description="bfloat16: matrix products in 16 bits, on processors that support it; weights stay in float32",
    )

    def shortened(self, share: float) -> Self:
        """Return settings with a share of the steps, at least one."""
        return self.model_copy(update={"steps": max(1, round(self.steps * share))})


_time_limited: ContextVar[list[str] | None] = ContextVar("time_limited", default=None)


@contextmanager
def time_limited_trainings() -> Iterator[list[str]]:
    """Yield a list that collects a note for each training in the block that its time limit ended early.

    On a slower machine such a training ends with other weights.
    """
    notes: list[str] = []
    token = _time_limited.set(notes)
    try:
        yield notes
    finally:
        _time_limited.reset(token)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread inside the block.

    Layers this small gain little from a second thread on idle cores. On busy cores each layer waits for its slowest
    thread, which took six times as long, measured on two cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def train(
    module: nn.Module,
    batch_loss: Callable[[], Tensor],
    settings: OptimizerSettings,
    *,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.thread_time,
) -> float:
    """Train `module` in place by Adam on `batch_loss()`, which draws its own batch; return the mean of the last losses.

    The learning rate follows a cosine to zero, and the final weights are the moving average. If all steps would take
    longer than `max_seconds`, the cosine follows the clock from half that time on, so that the learning rate still
    reaches zero. The clock counts only the work of this thread, because weights must not depend on other processes.
    `progress` receives the share done every REPORT_STEPS steps and at the end.
    """
    parameters = list(module.parameters())
    optimizer = Adam(parameters)
    average = ExponentialMovingAverage(module, settings.ema_decay)
    report = progress or (lambda share: None)
    device_type = parameters[0].device.type
    started_s = clock()
    recent, done = torch.zeros(()), 0.0
    module.train()
    for step in range(settings.steps):
        learning_rate = settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
        optimizer.clear_gradients()
        with torch.autocast(device_type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            loss = batch_loss()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(learning_rate)
        average.update(parameters)
        time_share = (clock() - started_s) / settings.max_seconds
        done = max(done, (step + 1) / settings.steps, time_share if time_share > 0.5 else 0.0)
        recent = loss.detach() if step == 0 else torch.lerp(recent, loss.detach(), LOSS_SHARE)
        if step % REPORT_STEPS == 0 or done >= 1.0:
            report(min(done, 1.0))
        if done >= 1.0:
            break
    notes = _time_limited.get()
    if step + 1 < settings.steps and notes is not None:
        notes.append(
            f"{type(module).__name__}: {step + 1} of {settings.steps} steps in the {settings.max_seconds:g} s allowed"
        )
    module.load_state_dict(average.average.state_dict())
    module.eval()
    return float(recent)


def denoising_losses(
    denoiser: PreconditionedDenoiser, x0: Tensor, sigma: Tensor, noise: Tensor, observed: Tensor | None = None
) -> Tensor:
    """Return weighted square errors (batch,) of denoising x0 + sigma * noise (EDM, eq. 2 with the weight of table 1).

    `x0`, `noise`: (batch, ...); `sigma`: one level per item. The weight gives the network's target unit variance at
    every noise level, so that no level dominates. `observed`: bool in the shape of `x0`, false for missing values,
    which do not count.
    """
    level = per_item(sigma, x0)
    denoised = denoiser(diffuse(x0, level, noise), level)
    squares: Tensor = (denoiser.loss_weight(level) * (denoised - x0).square()).flatten(1)
    if observed is None:
        return squares.mean(dim=1)
    known = observed.flatten(1)
    return (squares * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)


def fit_denoiser(
    denoiser: PreconditionedDenoiser,
    normals: Tensor,
    sigma_range: tuple[float, float],
    settings: OptimizerSettings,
    *,
    generator: torch.Generator,
    observed: Tensor | None = None,
    progress: Progress | None = None,
) -> float:
    """Train `denoiser` in place on `normals` (n, ...) of its shape; return the mean of the last losses.

    Noise levels are drawn log-uniformly from `sigma_range`. `observed`: bool in the shape of `normals`, false for
    missing values. They do not count in the loss: the denoiser must not learn their fill value as the most likely one.
    Raises ValueError if there are no normals.
    """
    _require_some(normals)
    batch = settings.batch_size

    def batch_loss() -> Tensor:
        rows = torch.randint(len(normals), (batch,), generator=generator).to(normals.device)
        sigma = log_uniform_sigmas(batch, sigma_range, generator=generator).to(normals.device)
        noise = torch.randn((batch, *normals.shape[1:]), generator=generator).to(normals.device)
        known = None if observed is None else observed[rows]
        return denoising_losses(denoiser, normals[rows], sigma, noise, known).mean()

    return train(denoiser, batch_loss, settings, progress=progress)


def train_denoiser(
    normals: Tensor,
    sigma_range: tuple[float, float],
    settings: OptimizerSettings,
    *,
    generator: torch.Generator,
    observed: Tensor | None = None,
    progress: Progress | None = None,
) -> VectorDenoiser:
    """Return a new denoiser of the normal vectors (n, dim), trained by `fit_denoiser`."""
    denoiser = VectorDenoiser.initialised(normals.shape[1], sigma_data=spread(normals), generator=generator)
    denoiser.to(normals.device)
    fit_denoiser(denoiser, normals, sigma_range, settings, generator=generator, observed=observed, progress=progress)
    return denoiser


def spread(normals: Tensor) -> float:
    """Return the root mean variance of samples (n, ...) as a `sigma_data`, at least 0.1 even for constant data."""
    _require_some(normals)
    return float(normals.var(dim=0, correction=0).mean().sqrt().clamp(0.1, 1e3))


def _require_some(normals: Tensor) -> None:
    if not len(normals):
        raise ValueError("Training a denoiser needs at least one normal sample; there are none.")
