"""One training loop for every network here, its running mean of weights, and the training of denoisers."""

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

from shared.diffusion.denoisers import PreconditionedDenoiser, VectorDenoiser
from shared.diffusion.schedules import diffuse, log_uniform_sigmas, per_item
from shared.settings import Settings

Progress = Callable[[float], None]
REPORT_STEPS = 25
LOSS_SHARE = 0.05  # of one more loss in the running mean that is returned


class ExponentialMovingAverage:
    """A running mean of a network's parameters, which scores better and more steadily than the last step's.

    The decay starts low and rises to its limit, so that the average of a short training is not its initial weights.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.average = copy.deepcopy(module).requires_grad_(False)
        self._decay, self._updates = decay, 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the parameters of one more step."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for mean, value in zip(self.average.parameters(), module.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)


class OptimizerSettings(Settings):
    """How a network is trained."""

    steps: int = Field(default=1500, ge=1, le=1_000_000, title="Steps", description="gradient steps")
    batch_size: int = Field(default=256, ge=1, le=65_536, title="Batch size", description="vectors a step")
    learning_rate: float = Field(
        default=1e-3, gt=0, le=1, title="Learning rate", description="of Adam, at the first step"
    )
    ema_decay: float = Field(
        default=0.995, ge=0, lt=1, title="Averaging", description="decay of the weights' running mean"
    )
    max_seconds: float = Field(
        default=600.0,
        gt=0,
        title="Time limit, seconds",
        description="of computing: training stops after it with what it has, and takes longer on a busy machine",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        title="Precision",
        description="bfloat16: matrix products in half the bits, for processors made for that; weights stay in float32",
    )

    def shortened(self, share: float) -> Self:
        """The same with that share of its steps, at least one."""
        return self.model_copy(update={"steps": max(1, round(self.steps * share))})


_cut_short: ContextVar[list[str] | None] = ContextVar("cut_short", default=None)


@contextmanager
def noting_short_trainings() -> Iterator[list[str]]:
    """A list that tells, once the block is done, which trainings in it were ended by the clock: on a slower machine
    they end with other weights."""
    notes: list[str] = []
    token = _cut_short.set(notes)
    try:
        yield notes
    finally:
        _cut_short.reset(token)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread inside the block.

    Layers this small gain little from a second thread on idle cores, and lose a lot on busy ones (six times, measured
    on two), where each layer waits for its slowest thread.
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
    """Train `module` in place by Adam on `batch_loss()`, which draws its own batch; returns the last losses' mean.

    The learning rate falls to zero along a cosine. `progress` is called with the share done, now and then and at the
    end. The weights left in `module` are their running mean. On a machine too slow for all steps within `max_seconds`
    the cosine is walked by the clock from half that time on, so that an early end is a finished training too. The clock
    is that of this thread's own work, for weights must not depend on what else the machine does.
    """
    optimizer = torch.optim.Adam(module.parameters(), lr=settings.learning_rate, fused=True)
    average = ExponentialMovingAverage(module, settings.ema_decay)
    report = progress or (lambda share: None)
    device_type = next(module.parameters()).device.type
    started_s = clock()
    recent, done = torch.zeros(()), 0.0
    module.train()
    for step in range(settings.steps):
        optimizer.param_groups[0]["lr"] = settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device_type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            loss = batch_loss()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        average.update(module)
        time_share = (clock() - started_s) / settings.max_seconds
        done = max(done, (step + 1) / settings.steps, time_share if time_share > 0.5 else 0.0)
        recent = loss.detach() if step == 0 else torch.lerp(recent, loss.detach(), LOSS_SHARE)
        if step % REPORT_STEPS == 0 or done >= 1.0:
            report(min(done, 1.0))
        if done >= 1.0:
            break
    notes = _cut_short.get()
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
    """Weighted square errors (batch,) of the denoised x0 + sigma * noise (EDM, eq. 2 with the weight of table 1).

    `x0`, `noise`: (batch, ...); `sigma`: one level an item. The weight makes the network's own target unit variance at
    every noise level, so that no level drowns the others. `observed`: bool of the shape of `x0`, false where what
    stands in for a missing value is not to be learned.
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
    """Train `denoiser` in place on `normals` (n, ...) of its kind; returns the mean of the last losses.

    `observed`: bool of the shape of `normals`; missing values count in no loss, lest what stands in for them be taken
    for the likeliest value there is. Noise levels are drawn log-uniformly from `sigma_range`. Raises ValueError where
    there are no normals.
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
    """A new denoiser of the normal vectors (n, dim), trained by `fit_denoiser`."""
    denoiser = VectorDenoiser.initialised(normals.shape[1], sigma_data=spread(normals), generator=generator)
    denoiser.to(normals.device)
    fit_denoiser(denoiser, normals, sigma_range, settings, generator=generator, observed=observed, progress=progress)
    return denoiser


def spread(normals: Tensor) -> float:
    """Root mean variance of the samples' values (n, ...), kept away from zero for constant data: a `sigma_data`."""
    _require_some(normals)
    return float(normals.var(dim=0, correction=0).mean().sqrt().clamp(0.1, 1e3))


def _require_some(normals: Tensor) -> None:
    if not len(normals):
        raise ValueError("A denoiser is trained on at least one normal sample; there are none.")
