"""Measurement of a trained bundle on its held-out normals and on corrupted copies of them. No label is used."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloud.training.judgement.figures import CorruptionFigures, Drift
from shared.calibration import MIN_CALIBRATION_SIZE, Calibration
from shared.diffusion.training import Progress

PValues: TypeAlias = NDArray[np.float64]
Judge: TypeAlias = Callable[[NDArray[Any]], PValues]

LATER_SHARE = 1 / 3  # of the held-out samples; the rest calibrates
STANDARD_ERRORS, MIN_SHIFT = 3.0, 0.5  # a smaller change of a mean is not reported
MAX_NAMED = 3
ROUNDS, MIN_ROUND = 3, 4  # rounds at most, and copies of each kind in one; the time limit is read between them


@dataclass(frozen=True, slots=True)
class Judges:
    """p-values (n,) of samples (n, ...) by the device's screener and by the fused verdict."""

    screener: Judge
    fused: Judge


@dataclass(frozen=True, slots=True)
class Corrupted:
    """Judged copies of one kind. `samples`: (n, ...); `screener`, `fused`: p-values (n,)."""

    samples: NDArray[Any]
    screener: PValues
    fused: PValues


@dataclass(frozen=True, slots=True)
class Measured:
    """Corrupted copies by kind; `unfinished` if the time limit left some unjudged."""

    copies: Mapping[str, Corrupted]
    unfinished: bool

    def figures(self, rate: float, verdict_rate: float, forward_p_value: float) -> dict[str, CorruptionFigures]:
        """Return the number of copies found at the rates of alarms and of verdicts, and of those forwarded, by kind."""
        return {
            kind: CorruptionFigures(
                copies=len(judged.samples),
                screener=int(np.count_nonzero(judged.screener <= rate)),
                fused=int(np.count_nonzero(judged.fused <= rate)),
                judged_anomalous=int(np.count_nonzero(judged.fused <= verdict_rate)),
                forwarded=int(np.count_nonzero(judged.screener <= max(forward_p_value, rate))),
            )
            for kind, judged in self.copies.items()
        }


def measure(
    copies: Mapping[str, NDArray[Any]], judges: Judges, limit_s: float, progress: Progress = lambda share: None
) -> Measured:
    """Judge corrupted copies (n, ...) by kind, in rounds over all kinds, at least one and until `limit_s` is over."""
    started = time.monotonic()
    parts: dict[str, list[Corrupted]] = {kind: [] for kind, samples in copies.items() if len(samples)}
    longest = max((len(samples) for samples in copies.values()), default=0)
    size = max(MIN_ROUND, -(-longest // ROUNDS))
    done, total = 0, sum(len(samples) for samples in copies.values())
    for first in range(0, longest, size):
        if first and time.monotonic() - started > limit_s:
            return Measured(_joined(parts), unfinished=True)
        for kind, found in parts.items():
            samples = copies[kind][first : first + size]
            if len(samples):
                found.append(Corrupted(samples, judges.screener(samples), judges.fused(samples)))
                done += len(samples)
                progress(done / total)
    return Measured(_joined(parts), unfinished=False)


def _joined(parts: Mapping[str, Sequence[Corrupted]]) -> dict[str, Corrupted]:
    return {
        kind: Corrupted(
            *(np.concatenate([getattr(part, name) for part in found]) for name in ("samples", "screener", "fused"))
        )
        for kind, found in parts.items()
        if found
    }


def drift(
    names: Sequence[str],
    first: NDArray[np.float64],
    last: NDArray[np.float64],
    scores: NDArray[np.float64],
    forward_p_value: float,
) -> Drift:
    """Return how the last part of the normals differs from the first.

    Args:
        names: Channels, or statistics of an image.
        first: Their values (n, channels) in the first part; NaN is missing.
        last: The same in the last part.
        scores: Scores (held out,) of the screener in the order of the data.
        forward_p_value: p-value at which a device forwards.
    """
    changes = []
    for channel, name in enumerate(names):
        before, after = (part[np.isfinite(part[:, channel]), channel] for part in (first, last))
        if len(before) < 2 or len(after) < 2:
            continue
        spread = max(float(before.std()), 1e-9 * max(abs(float(before.mean())), 1e-9))
        shift = abs(float(after.mean() - before.mean()))
        error = np.sqrt(before.var() / len(before) + after.var() / len(after))
        if shift > MIN_SHIFT * spread and shift > STANDARD_ERRORS * error:
            size = min(shift / spread, 1e6)
            changes.append((size, f"{name} {_figure(before.mean())} at first, {_figure(after.mean())} at last"))
    changes.sort(key=lambda change: -change[0])
    later, forwarded = _forwarded_later(scores, forward_p_value)
    return Drift(
        channels=tuple(text for _, text in changes[:MAX_NAMED]),
        largest=changes[0][0] if changes else 0.0,
        later=later,
        later_forwarded=forwarded,
    )


def _forwarded_later(scores: NDArray[np.float64], forward_p_value: float) -> tuple[int, int]:
    """Return the size of the last part, and its samples that a calibration on the earlier ones would forward."""
    later = int(len(scores) * LATER_SHARE)
    if len(scores) - later < MIN_CALIBRATION_SIZE or later < 1:
        return 0, 0
    calibration = Calibration.fit(scores[:-later])
    return later, int(np.count_nonzero(calibration.p_values(scores[-later:]).values <= forward_p_value))


def _figure(value: float) -> str:
    """Return four significant digits, and all digits of whole numbers up to a million."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e6 else f"{value:.4g}"
