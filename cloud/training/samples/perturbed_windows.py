"""Normal windows of a series with perturbed readings, for the distillation of the head.

The graph inputs of a window depend on one another: no reading moves one principal component alone. Perturbing the
inputs one by one mostly makes vectors that no window has, and the head does not learn those that windows do have. So
the readings are perturbed here, and the graph inputs are computed from them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.diffusion.distillation import Perturbation
from shared.preprocessing import Preprocessor
from shared.preprocessing.base import scale_of

SIZES = (0.02, 30.0)  # of a perturbation, in standard deviations of its channel; small ones matter if it is constant
FACTORS = (0.2, 6.0)
TWICE_SHARE = 0.4  # share of windows with two perturbations
WHOLE_SHARE = 0.6  # share of windows perturbed at all time points
ALIKE_SHARE = 0.5  # share of windows with about the same size in all channels
BLOCK_WINDOWS = 4096

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Draw:
    """Arguments of one kind of perturbation.

    Attributes:
        x: Standardised windows (n, length, channels).
        where: Readings to change, of the same shape.
        size: Sizes (n, 1, channels), and `sign` their signs times a factor.
        others: Other normal windows, and `more` yet others, of the shape of `x`.
        free: Channels (channels,) that may change.
    """

    x: Floats
    where: NDArray[np.bool_]
    size: Floats
    sign: Floats
    others: Floats
    more: Floats
    free: NDArray[np.bool_]
    rng: np.random.Generator


def perturbed_inputs(preprocessor: Preprocessor, windows: Floats) -> Perturbation:
    """Return a function that makes graph inputs of perturbed windows from normal `windows` (n, length, channels)."""
    spec = preprocessor.spec
    fixed = [spec.channels.index(spec.mode_channel)] if spec.mode_channel else []
    units = channel_units(windows)

    def make(count: int, generator: torch.Generator) -> Tensor:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        sizes = [min(BLOCK_WINDOWS, count - start) for start in range(0, count, BLOCK_WINDOWS)]
        blocks = (perturb_windows(windows, size, rng, units, fixed=fixed) for size in sizes)
        return torch.cat([torch.from_numpy(preprocessor.prepare(block).inputs) for block in blocks])

    return make


def channel_units(windows: Floats) -> tuple[Floats, Floats]:
    """Return mean and standard deviation (channels,) of the observed readings of windows (n, length, channels)."""
    observed = ~np.isnan(windows)
    counts = np.maximum(observed.sum(axis=(0, 1)), 1)
    mean = np.where(observed, windows, 0.0).sum(axis=(0, 1)) / counts
    spread = np.sqrt(np.where(observed, np.square(windows - mean), 0.0).sum(axis=(0, 1)) / counts)
    return mean, scale_of(spread, mean)


def perturb_windows(
    windows: Floats,
    count: int,
    rng: np.random.Generator,
    units: tuple[Floats, Floats],
    *,
    fixed: Sequence[int] = (),
) -> Floats:
    """Return `count` windows (count, length, channels) made from random normal ones (n, length, channels).

    One of these is done to each window, all equally often: nothing; a shift, a ramp or noise in some channels over a
    stretch of time; a stretch pasted from another window, frozen, reversed in time, or exchanged between channels; a
    step along the difference of two other windows; a change of scale. Sizes, in the `units` of the channels (see
    `channel_units`), and the number of channels are log-uniform. Missing readings (NaN) stay missing, and the `fixed`
    channels, such as an operating mode, keep their values.
    """
    mean, unit = units

    def drawn() -> Floats:
        chosen: Floats = (windows[rng.integers(0, len(windows), count)] - mean) / unit
        return chosen

    original = drawn()
    free = np.ones(windows.shape[2], dtype=np.bool_)
    free[list(fixed)] = False
    out = _perturb_once(original, drawn(), drawn(), free, rng)
    twice = rng.random(count) < TWICE_SHARE
    out[twice] = _perturb_once(out[twice], drawn()[twice], drawn()[twice], free, rng)
    known = free & ~np.isnan(original) & ~np.isnan(out)
    result: Floats = np.where(known, out, original) * unit + mean
    return result


def _perturb_once(x: Floats, others: Floats, more: Floats, free: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    count, _, channels = x.shape
    out = x.copy()
    kinds = rng.integers(0, len(_KINDS) + 1, count)
    where = _stretches(x.shape, rng) & free
    size = _log_uniform(SIZES, (count, 1, channels), rng)
    size = np.where(rng.random((count, 1, 1)) < ALIKE_SHARE, size[:, :, :1], size)
    sign = rng.choice([-1.0, 1.0], size.shape) * rng.uniform(0.5, 1.0, size.shape)
    for number, kind in enumerate(_KINDS):
        at = kinds == number
        out[at] = kind(_Draw(x[at], where[at], size[at], sign[at], others[at], more[at], free, rng))
    return out


def _stretches(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a mask (count, length, channels): for each window a stretch of time in one or more channels."""
    count, length, channels = shape
    share = _log_uniform((1.0 / channels, 1.0), count, rng)
    touched = rng.random((count, channels)) < share[:, np.newaxis]
    touched[np.arange(count), rng.integers(0, channels, count)] = True
    ends = np.sort(rng.integers(0, length, (count, 2)), axis=1)
    ends[rng.random(count) < WHOLE_SHARE] = (0, length - 1)
    steps = np.arange(length)
    during = (steps >= ends[:, :1]) & (steps <= ends[:, 1:])
    return during[:, :, np.newaxis] & touched[:, np.newaxis, :]


def _log_uniform(bounds: tuple[float, float], shape: int | tuple[int, ...], rng: np.random.Generator) -> Floats:
    drawn: Floats = np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]), shape))
    return drawn


def _shifted(draw: _Draw) -> Floats:
    return np.where(draw.where, draw.x + draw.size * draw.sign, draw.x)


def _ramped(draw: _Draw) -> Floats:
    rising = np.cumsum(draw.where, axis=1) / np.maximum(draw.where.sum(axis=1, keepdims=True), 1)
    ramped: Floats = draw.x + rising * draw.where * draw.size * draw.sign
    return ramped


def _noised(draw: _Draw) -> Floats:
    return np.where(draw.where, draw.x + draw.size * draw.rng.standard_normal(draw.x.shape), draw.x)


def _pasted(draw: _Draw) -> Floats:
    return np.where(draw.where, draw.others, draw.x)


def _frozen(draw: _Draw) -> Floats:
    first = np.take_along_axis(draw.x, draw.where.argmax(axis=1)[:, np.newaxis], axis=1)
    return np.where(draw.where, first, draw.x)


def _reversed(draw: _Draw) -> Floats:
    return np.where(draw.where, draw.x[:, ::-1], draw.x)


def _exchanged(draw: _Draw) -> Floats:
    channels = np.arange(draw.x.shape[2])
    channels[draw.free] = draw.rng.permutation(channels[draw.free])  # the mode keeps its channel
    return np.where(draw.where, draw.x[:, :, channels], draw.x)


def _stepped(draw: _Draw) -> Floats:
    return draw.x + draw.size[:, :, :1] * (draw.others - draw.more)


def _rescaled(draw: _Draw) -> Floats:
    return draw.x * _log_uniform(FACTORS, (len(draw.x), 1, 1), draw.rng)


_KINDS: tuple[Callable[[_Draw], Floats], ...] = (
    _shifted,
    _ramped,
    _noised,
    _pasted,
    _frozen,
    _reversed,
    _exchanged,
    _stepped,
    _rescaled,
)
