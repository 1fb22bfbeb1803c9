"""Normal ranges of channels, learned in training, and the channels of new readings that differ most from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.bundle import InputSpec

RANGE_QUANTILES = (0.01, 0.99)  # of the training readings
BUNDLES_WITHOUT_RANGE = 2.0  # deviations to both sides of the mean, in bundles that were trained before ranges
MAX_NAMED = 3
MIN_SPREAD_RATIO = 2.0  # of the spread to that of the training readings
STUCK_SPREAD = 1e-4  # largest spread of a stuck channel, in deviations
MIN_MISSING_SHARE = 0.5
MIN_DISTANCE = 0.1  # deviations outside the range; less is the rounding of a constant channel


@dataclass(frozen=True, slots=True)
class ChannelRanges:
    """Normal readings of each measured channel.

    `mean`, `scale`, `low`, `high`: (channels,). `scale` is the standard deviation; between `low` and `high` lie 98 % of
    the training readings.
    """

    channels: tuple[str, ...]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def from_moments(
        cls,
        channels: Sequence[str],
        mean: NDArray[np.float64],
        scale: NDArray[np.float64],
        span: NDArray[np.float64] | None,
    ) -> "ChannelRanges":
        """Return ranges from the arrays of a preprocessing; `span` (2, channels) is None in older bundles."""
        if span is None:
            span = np.stack([mean - BUNDLES_WITHOUT_RANGE * scale, mean + BUNDLES_WITHOUT_RANGE * scale])
        return cls(tuple(channels), mean, scale, span[0], span[1])

    def differences(self, sums: "ReadingSums", most: int = MAX_NAMED) -> list[str]:
        """Return a text for each channel that differs most, such as "Temperature 79 against 88 to 91".

        A channel is named if its mean lies outside its normal range, if its spread is several times larger, if it is
        stuck, or if most of its readings are missing. The list is empty if no channel stands out. A somewhat smaller
        spread is no difference: a few hundred samples vary less than all training data.
        """
        found: list[tuple[float, str]] = []
        mean, spread = sums.moments()
        for place, name in enumerate(self.channels):
            low, high = float(self.low[place]), float(self.high[place])
            unit = max(float(self.scale[place]), 1e-12)
            distance = max(low - mean[place], mean[place] - high) / unit
            if sums.missing_share(place) >= MIN_MISSING_SHARE:
                found.append((np.inf, f"{name} missing in {sums.missing_share(place):.0%} of the readings"))
            elif distance >= MIN_DISTANCE:
                found.append((1.0 + distance, f"{name} {_figure(mean[place])} against {_span(low, high)}"))
            elif low < high and spread[place] >= MIN_SPREAD_RATIO * unit:
                found.append((1.0, f"{name} varies by {_figure(spread[place])} against {_figure(unit)}"))
            elif low < high and spread[place] <= STUCK_SPREAD * unit:
                found.append((0.5, f"{name} stuck at {_figure(mean[place])}"))
        return [text for _, text in sorted(found, key=lambda pair: -pair[0])[:most]]


@dataclass(slots=True)
class ReadingSums:
    """Sums over readings of each channel, relative to `origin` (channels,) so that squares keep their digits."""

    origin: NDArray[np.float64]
    count: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    readings: float = 0.0

    @classmethod
    def empty(cls, origin: NDArray[np.float64]) -> "ReadingSums":
        """Return sums of no reading."""
        return cls(origin, np.zeros(len(origin)), np.zeros(len(origin)), np.zeros(len(origin)))

    def add(self, values: NDArray[Any]) -> None:
        """Add readings (n, channels); NaN and infinite values count as missing."""
        deviations = np.asarray(values, dtype=np.float64) - self.origin
        observed = np.isfinite(deviations)
        if not observed.all():
            deviations = np.where(observed, deviations, 0.0)
        self.count += observed.sum(axis=0)
        self.total += deviations.sum(axis=0)
        with np.errstate(over="ignore"):
            self.squares += np.square(deviations).sum(axis=0)
        self.readings += len(values)

    def plus(self, other: "ReadingSums") -> "ReadingSums":
        """Return the sums of both."""
        return ReadingSums(
            self.origin,
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            self.readings + other.readings,
        )

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and standard deviation (channels,) of the observed readings."""
        count = np.maximum(self.count, 1.0)
        mean = self.total / count
        with np.errstate(over="ignore", invalid="ignore"):
            variance: NDArray[np.float64] = np.maximum(self.squares / count - np.square(mean), 0.0)
        spread = np.sqrt(np.nan_to_num(variance, nan=0.0, posinf=float(np.finfo(np.float64).max)))
        return mean + self.origin, spread

    def missing_share(self, channel: int) -> float:
        """Return the share of missing readings of a channel."""
        return 1.0 - float(self.count[channel]) / self.readings if self.readings else 0.0


def ranges_of(readings: NDArray[np.float64], observed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return low and high (2, channels) of the observed training readings (n, channels); 0 for one without any."""
    columns = [readings[observed[:, place], place] for place in range(readings.shape[1])]
    spans = [np.quantile(column, RANGE_QUANTILES) if len(column) else np.zeros(2) for column in columns]
    return np.stack(spans, axis=1)


def stored_span(arrays: Mapping[str, NDArray[Any]], channels: int) -> NDArray[np.float64] | None:
    """Return the array "range" (2, channels) of a preprocessing's file, or None if an older bundle lacks it."""
    span = np.asarray(arrays["range"], dtype=np.float64) if "range" in arrays else None
    return span if span is not None and span.shape == (2, channels) and np.isfinite(span).all() else None


def measured_positions(spec: InputSpec) -> NDArray[np.intp]:
    """Return the positions of the measured channels among all channels of a sample."""
    return np.array([place for place, name in enumerate(spec.channels) if name != spec.mode_channel], dtype=np.intp)


def _figure(value: Any) -> str:
    """Return a reading with three significant digits, without an exponent where that is short."""
    number = float(value)
    return f"{number:.0f}" if 100 <= abs(number) < 1e6 else f"{number:.3g}"


def _span(low: float, high: float) -> str:
    """Return a range, with as many digits as it takes to tell its ends apart."""
    first, last = _figure(low), _figure(high)
    if first == last and low != high:
        first, last = f"{low:.6g}", f"{high:.6g}"
    return first if first == last else f"{first} to {last}"
