"""Standard corruptions of table rows and of windows of a series. They depend on the seed alone.

Each changes one measured channel of a normal sample, except where stated. Sizes are standard deviations of the channel
on normal data. Channels of texts (one-hot) and the operating mode stay as they are.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloud.training.samples.perturbed_windows import channel_units
from shared.bundle import InputSpec

Floats: TypeAlias = NDArray[np.float64]
Change: TypeAlias = Callable[[Floats, Floats, Floats, NDArray[np.intp], np.random.Generator], Floats]

COPIES = 40  # of each kind
FAR, SHIFT, SPIKE, NOISE = 6.0, 3.0, 6.0, 2.0  # standard deviations


def measured_channels(spec: InputSpec) -> NDArray[np.intp]:
    """Return the positions of the channels that may change; all measured ones if every one is of a text."""
    one_hot = {f"{column}={value}" for column, values in spec.categories.items() for value in values}
    numeric = [i for i, name in enumerate(spec.channels) if name != spec.mode_channel and name not in one_hot]
    every = [i for i, name in enumerate(spec.channels) if name != spec.mode_channel]
    return np.array(numeric or every, dtype=np.intp)


def _swapped(x: Floats, other: Floats, unit: Floats, channels: NDArray[np.intp], rng: np.random.Generator) -> Floats:
    channel = rng.choice(channels)
    x[channel] = other[channel]
    return x


def _far(x: Floats, other: Floats, unit: Floats, channels: NDArray[np.intp], rng: np.random.Generator) -> Floats:
    channel = rng.choice(channels)
    x[channel] += rng.choice([-1.0, 1.0]) * FAR * unit[channel]
    return x


def _unrelated(x: Floats, other: Floats, unit: Floats, channels: NDArray[np.intp], rng: np.random.Generator) -> Floats:
    """Take a random half of the channels from another row, which breaks their relations to the rest."""
    chosen = rng.permutation(channels)[: max(1, len(channels) // 2)]
    x[chosen] = other[chosen]
    return x


def _start(x: Floats, rng: np.random.Generator) -> int:
    """Return a first changed time point in the first quarter of the window."""
    return int(rng.integers(0, len(x) // 4 + 1))


def _stuck(x: Floats, other: Floats, unit: Floats, channels: NDArray[np.intp], rng: np.random.Generator) -> Floats:
    channel, start = rng.choice(channels), _start(x, rng)
    x[start:, channel] = x[start, channel]
    return x


def _spike(x: Floats, other: Floats, unit: Floats, channels: NDArray[np.intp], rng: np.random.Generator) -> Floats:
    channel = rng.choice(channels)
    x[rng.integers(0, len(x)), channel] += rng.choice([-1.0, 1.0]) * SPIKE * unit[channel]
    return x


def _shifted(x: Floats, other: Floats, unit: Floats, channels: NDArray[np.intp], rng: np.random.Generator) -> Floats:
    channel = rng.choice(channels)
    x[_start(x, rng) :, channel] += rng.choice([-1.0, 1.0]) * SHIFT * unit[channel]
    return x


def _noisy(x: Floats, other: Floats, unit: Floats, channels: NDArray[np.intp], rng: np.random.Generator) -> Floats:
    channel = rng.choice(channels)
    x[:, channel] += NOISE * unit[channel] * rng.standard_normal(len(x))
    return x


def _delayed(x: Floats, other: Floats, unit: Floats, channels: NDArray[np.intp], rng: np.random.Generator) -> Floats:
    """Delay one channel by an eighth to a half of the window; its first reading fills the gap."""
    channel, delay = rng.choice(channels), int(rng.integers(max(1, len(x) // 8), max(2, len(x) // 2 + 1)))
    x[delay:, channel] = x[: len(x) - delay, channel].copy()
    x[:delay, channel] = x[0, channel]
    return x


ROW_CORRUPTIONS: Mapping[str, Change] = {
    "far value": _far,
    "value of another row": _swapped,
    "broken correlation": _unrelated,
}
WINDOW_CORRUPTIONS: Mapping[str, Change] = {
    "stuck channel": _stuck,
    "spike": _spike,
    "level shift": _shifted,
    "noise": _noisy,
    "delay": _delayed,
}


def corrupted_vectors(
    kinds: Mapping[str, Change], normal: Floats, spec: InputSpec, count: int, seed: int
) -> dict[str, Floats]:
    """Return `count` corrupted copies by kind of rows (n, features) or windows (n, length, channels)."""
    _, unit = channel_units(normal.reshape(len(normal), -1, normal.shape[-1]))
    channels = measured_channels(spec)
    found = {}
    for position, (kind, change) in enumerate(kinds.items()):
        rng = np.random.default_rng([seed % 2**32, position])
        own, others = rng.integers(0, len(normal), count), rng.integers(0, len(normal), count)
        copies = [change(normal[i].copy(), normal[j], unit, channels, rng) for i, j in zip(own, others, strict=True)]
        found[kind] = changed_only(np.stack(copies), normal[own])
    return found


def changed_only(copies: NDArray[Any], originals: NDArray[Any]) -> NDArray[Any]:
    """Return the copies that differ from their originals: a frozen standing scene is not a corruption."""
    same = copies == originals
    if copies.dtype.kind == "f":
        same |= np.isnan(copies) & np.isnan(originals)
    changed: NDArray[Any] = copies[~same.reshape(len(copies), -1).all(axis=1)]
    return changed
