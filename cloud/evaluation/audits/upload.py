"""Upload that `max_miss_rate` asks for, on simulated deployments beside the least upload that holds it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.audits.populations import Population
from shared.errors import DataError
from shared.miss_control import CELLS, MissCounts, cells_of, seen_part, thresholds_that_hold, window_audits

AUDIT_SHARE = 0.01
FIRST_P_VALUE = 0.05  # in force until the audits suffice: the default of forward_p_value
CHECKPOINTS = (3000, 10_000, 30_000, 100_000, 300_000)
LIMITS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05)
MIN_ORACLE, MAX_ORACLE = 0.005, 0.2
_LEAST_SAMPLES, _STEPS_PER_DECADE = 20_000, 24
_LARGEST_STEP = round(window_audits(max(LIMITS)) / AUDIT_SHARE)  # a longer one would miss the ends of windows


@dataclass(frozen=True, slots=True)
class Deployments:
    """Deployments with a limit each: `cells` (runs, CELLS, 2), the others (runs,) or (runs, thresholds).

    `oracle`: least share of forwarded samples that holds the limit. `rates` and `uploads`: miss rate and share of
    forwarded samples at each threshold.
    """

    cells: NDArray[np.float64]
    limits: NDArray[np.float64]
    oracle: NDArray[np.float64]
    rates: NDArray[np.float64]
    uploads: NDArray[np.float64]


def deployments(populations: Sequence[Population], runs: int, random: np.random.Generator) -> Deployments:
    """Return deployments of populations in turn, each with one of LIMITS.

    Each limit asks for an upload between MIN_ORACLE and MAX_ORACLE; a population without such a limit is left out.
    Raises DataError if all are.
    """
    found = []
    for each in populations:
        oracle = {limit: each.least_upload(limit) for limit in LIMITS}
        fitting = {limit: share for limit, share in oracle.items() if share and MIN_ORACLE <= share <= MAX_ORACLE}
        if fitting:
            found.append((each.cells(), fitting, *each.miss_rates_at_thresholds()))
    if not found:
        raise DataError(
            f"No population has a limit that asks for an upload of {100 * MIN_ORACLE:g} to {100 * MAX_ORACLE:g} %: "
            "give more deployments with --runs, or a folder with more tables with --data."
        )
    rows: list[tuple[Any, ...]] = []
    for run in range(runs):
        cells, fitting, rates, uploads = found[run % len(found)]
        limit = list(fitting)[random.integers(len(fitting))]
        rows.append((cells, limit, fitting[limit], rates, uploads))
    return Deployments(*(np.array(column, np.float64) for column in zip(*rows, strict=True)))


def simulate(of: Deployments, random: np.random.Generator) -> dict[str, Any]:
    """Return shares of violations and ratios of uploads at each of CHECKPOINTS, in audits.

    Verdicts arrive in steps, 24 for each tenfold number of samples; after each the threshold is chosen again, and the
    recent evidence restarts where a window has ended.
    """
    runs = len(of.limits)
    counts, before, before_last = (_no_counts(runs) for _ in range(3))  # in all, and before the last windows
    windows = np.array([window_audits(limit) for limit in of.limits.tolist()])
    chosen = np.zeros(runs, np.intp)
    violated, known = np.zeros((2, runs), bool)
    first_cell = int(cells_of(FIRST_P_VALUE))
    shares = of.cells.reshape(runs, -1) / of.cells.sum(axis=(1, 2))[:, None]
    part, samples, result = seen_part(AUDIT_SHARE), 0, {}
    for total, checkpoint in _steps():
        drawn = random.multinomial(total - samples, shares).reshape(runs, CELLS, 2)
        samples = total
        threshold = np.where(chosen > 0, chosen - 1, first_cell)
        stays = np.arange(CELLS)[None, :, None] <= threshold[:, None, None]
        counts.audits[...] += np.where(stays, random.binomial(drawn, AUDIT_SHARE), 0)
        forwarded = np.where(stays, 0, drawn)
        counts.parts[...] += part * forwarded
        counts.squares[...] += part * part * forwarded
        recent = counts.since(before_last)
        chosen = np.minimum(thresholds_that_hold(counts, of.limits), thresholds_that_hold(recent, of.limits))
        ended = (counts.audits - before.audits).sum(axis=(1, 2)) >= windows
        before_last.take(ended, before)
        before.take(ended, counts)
        known |= chosen > 0
        place = np.maximum(chosen - 1, 0)[:, None]
        violated |= (chosen > 0) & (np.take_along_axis(of.rates, place, axis=1)[:, 0] > of.limits)
        if checkpoint:
            uploads = np.take_along_axis(of.uploads, place, axis=1)[:, 0]
            result[str(checkpoint)] = _figures(of, chosen > 0, uploads, violated[known])
    return result


def _no_counts(runs: int) -> MissCounts:
    return MissCounts(*(np.zeros((runs, CELLS, 2)) for _ in range(3)))


def _steps() -> list[tuple[int, int]]:
    """Return the numbers of samples at each step, with the checkpoint that it is, or 0."""
    most = max(CHECKPOINTS) / AUDIT_SHARE
    count = int(np.log10(most / _LEAST_SAMPLES) * _STEPS_PER_DECADE)
    spaced = np.geomspace(_LEAST_SAMPLES, most, count).astype(int)
    even = np.arange(_LARGEST_STEP, most, _LARGEST_STEP).astype(int)
    spaced = spaced[np.diff(spaced, prepend=0) <= _LARGEST_STEP]
    steps = dict.fromkeys([*spaced.tolist(), *even[even > spaced[-1]].tolist()], 0)
    steps |= {round(checkpoint / AUDIT_SHARE): checkpoint for checkpoint in CHECKPOINTS}
    return sorted(steps.items())


def _figures(
    of: Deployments, known: NDArray[np.bool_], uploads: NDArray[np.float64], violated: NDArray[np.bool_]
) -> dict[str, float | None]:
    """Return the figures of one checkpoint; `violated` (n,) is that of the deployments that have had a threshold."""
    ratios = uploads[known] / of.oracle[known]
    with_audits = (uploads[known] + AUDIT_SHARE * (1 - uploads[known])) / of.oracle[known]
    quantiles = np.quantile(ratios, (0.5, 0.9)).tolist() if known.any() else [None, None]
    return {
        "holds_at_all_times": float(1 - violated.mean()) if len(violated) else None,
        "without_a_threshold": float(1 - known.mean()),
        "upload_ratio_median": quantiles[0],
        "upload_ratio_p90": quantiles[1],
        "upload_ratio_of_totals": float(uploads[known].sum() / of.oracle[known].sum()) if known.any() else None,
        "upload_ratio_with_audits_median": float(np.median(with_audits)) if known.any() else None,
        "within_1_5": float((ratios <= 1.5).sum() / len(known)),
        "within_1_2": float((ratios <= 1.2).sum() / len(known)),
    }
