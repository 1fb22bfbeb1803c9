"""Drift detector: sequential tests of whether samples are still exchangeable with those before them.

For each watched value (the score, or one channel) the detector keeps counts over BINS bins. A new value gets the
conformal p-value of its bin among all counts so far, with ties broken at random. Under exchangeability these p-values
are independent and uniform, for every distribution. Bets against uniformity multiply a capital (Simple Jumper, on
p and on |2p - 1|); fresh capital of 1 enters with each value, so that a late change is found as fast as an early one.
The capital minus the number of values is a martingale. By Doob's inequality an alarm at a capital of `limit` is false
within any n values with a probability of at most n / limit, and false alarms are at least `limit` values apart on
average. Both hold for the mean capital of several watched values as well.

Sources: conformal test martingales and the Simple Jumper: Vovk, Petej, Nouretdinov, Ahlberg, Carlsson & Gammerman,
"Retrain or not retrain: conformal test martingales for change-point detection" (COPA 2021), algorithm 1; the
Shiryaev-Roberts sum: Vovk, "Testing randomness online", Statistical Science 2021, section 5; mean of several
detectors: Shin, Ramdas & Rinaldo, "E-detectors" (2022), proposition 2.4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError

BINS = 16
BETS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])  # slopes of the betting function 1 + slope * (2p - 1)
JUMP_SHARE = 0.01  # of the capital of each bet is spread over all bets before a value
MAX_CAPITAL = 1e250
RECENT = 200.0  # tested values over which `recent` decays to 1/e


@dataclass(slots=True)
class DriftDetector:
    """Detector over several watched values, which share one rate of false alarms.

    `edges`: (values, BINS - 1) float64, ascending inner edges of the bins. `counts`: (values, BINS) values seen.
    `capital`: (values, 2, bets). `recent`: (values, 2), mean of 2p - 1 and of 2|2p - 1| - 1 over recent values, 0
    without drift. `random`: generator that breaks ties.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.float64]
    capital: NDArray[np.float64]
    recent: NDArray[np.float64]
    random: np.random.Generator

    @classmethod
    def begin(cls, edges: NDArray[np.float64], counts: NDArray[np.float64] | None = None, seed: int = 0) -> Self:
        """Return a detector without capital; `counts` are those of reference values, none by default."""
        shape = (len(edges), BINS)
        held = np.zeros(shape) if counts is None else np.array(counts, dtype=np.float64)
        capital, recent = np.zeros((len(edges), 2, len(BETS))), np.zeros((len(edges), 2))
        return cls(np.asarray(edges, dtype=np.float64), held, capital, recent, np.random.default_rng(seed))

    def observe(self, values: NDArray[Any], *, learns: bool = True) -> None:
        """Bet on values (n, values), in their order; values that are not finite are left out.

        Without `learns` the counts stay, so that `recent` compares with the values before.
        """
        for row in np.asarray(values, dtype=np.float64):
            self._observe_one(row, learns)

    @property
    def level(self) -> float:
        """Mean capital of all watched values: the statistic that is compared with the limit of false alarms."""
        return float(self.capital.sum(axis=(1, 2)).mean()) if len(self.capital) else 0.0

    def shares(self) -> NDArray[np.float64]:
        """Return the share (values,) of each watched value in the capital."""
        own = self.capital.sum(axis=(1, 2))
        total = float(own.sum())
        return own / total if total > 0 else np.zeros(len(own))

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return the state as named arrays, for a file."""
        return {"counts": self.counts, "capital": self.capital, "recent": self.recent}

    def resume(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the state that `to_arrays` gave; raises DataError for that of other watched values."""
        for name, own in self.to_arrays().items():
            saved = np.asarray(arrays.get(name, ()), dtype=np.float64)
            if saved.shape != own.shape or not (np.isfinite(saved).all() and (saved >= -1.0).all()):
                raise DataError(f"Not the state of this drift detector: its {name} differ in shape or are invalid.")
        self.counts, self.capital, self.recent = (np.array(arrays[name], dtype=np.float64) for name in self.to_arrays())

    def _observe_one(self, row: NDArray[np.float64], learns: bool) -> None:
        present, rows = np.isfinite(row), np.arange(len(row))
        bins = (row[:, np.newaxis] > self.edges).sum(axis=1)
        at_or_below = self.counts.cumsum(axis=1)
        total, own = at_or_below[:, -1], self.counts[rows, bins]
        above = total - at_or_below[rows, bins]
        p = (above + self.random.random(len(row)) * (own + 1.0)) / (total + 1.0)
        if learns:
            self.counts[rows[present], bins[present]] += 1.0
        tested = np.stack([2.0 * p - 1.0, 2.0 * np.abs(2.0 * p - 1.0) - 1.0], axis=1)
        self.recent[present] += (tested[present] - self.recent[present]) / RECENT
        self._bet(tested, present)

    def _bet(self, tested: NDArray[np.float64], present: NDArray[np.bool_]) -> None:
        """Add fresh capital, spread a part of it over the bets, and multiply each bet by what it wins."""
        fresh = self.capital + 1.0 / (2 * len(BETS))
        mixed = (1.0 - JUMP_SHARE) * fresh + JUMP_SHARE * fresh.mean(axis=2, keepdims=True)
        won = mixed * (1.0 + tested[:, :, np.newaxis] * BETS)
        self.capital = np.minimum(np.where(present[:, np.newaxis, np.newaxis], won, self.capital), MAX_CAPITAL)
