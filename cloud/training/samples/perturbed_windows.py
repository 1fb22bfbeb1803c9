"""Normal windows of a series, perturbed as readings: what a head is distilled on beside perturbed inputs.

The graph inputs of a window depend on one another: no reading moves a principal component and leaves all channels as
expected. Perturbing the inputs one by one mostly makes what no window has, and leaves a head untaught of what windows
do have. Here the readings are perturbed, and every input follows.
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

SIZES = (0.02, 30.0)  # of a perturbation, in deviations of its channel; small ones matter where a channel never moves
FACTORS = (0.2, 6.0)
TWICE_SHARE = 0.4  # of the windows, perturbed by a second kind too
WHOLE_SHARE = 0.6  # of the windows, perturbed over all of their time
ALIKE_SHARE = 0.5  # of the windows, in which all channels are perturbed by about one size
WINDOWS_A_BLOCK = 4096

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Draw:
    """What one kind of perturbation works on. `x`: (n, length, channels), standardised. `where`: of the same shape,
    which readings it may touch. `size`: (n, 1, channels), and `sign` of them. `others`, `more`: other windows."""

    x: Floats
    where: NDArray[np.bool_]
    size: Floats
    sign: Floats
    others: Floats
    more: Floats
    free: NDArray[np.bool_]
    rng: np.random.Generator


def perturbed_inputs(preprocessor: Preprocessor, windows: Floats) -> Perturbation:
    """A maker of graph inputs of perturbed windows, from normal `windows` (n, length, channels), for `distill_head`."""
    spec = preprocessor.spec
    fixed = [spec.channels.index(spec.mode_channel)] if spec.mode_channel else []
    units = channel_units(windows)

    def make(count: int, generator: torch.Generator) -> Tensor:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        sizes = [min(WINDOWS_A_BLOCK, count - start) for start in range(0, count, WINDOWS_A_BLOCK)]
        blocks = (perturb_windows(windows, size, rng, units, fixed=fixed) for size in sizes)
        return torch.cat([torch.from_numpy(preprocessor.prepare(block).inputs) for block in blocks])

    return make


def channel_units(windows: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation (channels,) of the observed readings of windows (n, length, channels)."""
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
    """`count` windows (count, length, channels) made from random normal ones (n, length, channels).

    In equal shares: untouched; a shift, a ramp or noise in some channels over some time; such a stretch taken from
    another window, frozen, turned round in time, or exchanged between channels; a step along the difference of two
    other windows; rescaled. Sizes, in the `units` of the channels (`channel_units`), and how many channels are touched
    are log-uniform. What is missing (NaN) stays missing, and the `fixed` channels, as an operating mode, stay as they
    are.
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
    """(count, length, channels): for each window a stretch of time in some of the channels, one at least."""
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


def _turned(draw: _Draw) -> Floats:
    return np.where(draw.where, draw.x[:, ::-1], draw.x)


def _exchanged(draw: _Draw) -> Floats:
    channels = np.arange(draw.x.shape[2])
    channels[draw.free] = draw.rng.permutation(channels[draw.free])  # a mode is no reading
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
    _turned,
    _exchanged,
    _stepped,
    _rescaled,
)
