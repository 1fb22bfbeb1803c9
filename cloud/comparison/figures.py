"""Figures of a comparison: agreement, changed decisions, detection on labelled samples, latency.

Intervals are at 95 %. Shares: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
AUROC: Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic", part 2,
Statistics in Medicine 25 (2006), method 5, which holds for few samples and for an AUROC of 1.
"""

import math
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cloud.metrics import separation
from cloud.rollouts.bounds import crossing
from cloud.store.comparison_samples import ANOMALOUS, Answer, ComparedSample
from shared.calibration import MIN_P_VALUE
from shared.samples import Decision

Z = 1.959964
MIN_LABELLED = 10  # of each kind; with fewer the intervals are too wide to decide by


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class ShareFigures(_Frozen):
    """A share `hits` of `count` with its interval; all None without a sample."""

    hits: int
    count: int
    value: float | None
    low: float | None
    high: float | None


class SideFigures(_Frozen):
    """Figures of one bundle. `auroc`, `found` and `false_alarms` are about labelled samples."""

    bundle_id: str
    anomalous: int
    undecided: int
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None
    found: ShareFigures
    false_alarms: ShareFigures
    latency_median_ms: float | None
    latency_p95_ms: float | None


class ComparisonFigures(_Frozen):
    """Figures of a comparison so far; `problems` name what cannot be decided by it."""

    judged: int
    agreement: ShareFigures
    only_first: int
    only_second: int
    real: int
    normal: int
    first: SideFigures
    second: SideFigures
    problems: tuple[str, ...]


def figures_of(found: Sequence[ComparedSample], first_bundle_id: str, second_bundle_id: str) -> ComparisonFigures:
    """Return the figures of the judged samples."""
    both = [item for item in found if item.is_judged]
    same = sum(item.first.decision is item.second.decision for item in both)
    real = [item for item in both if item.label in ANOMALOUS]
    normal = [item for item in both if item.label is not None and item.label not in ANOMALOUS]
    only_first, only_second = raised_by_one(both)
    return ComparisonFigures(
        judged=len(found),
        agreement=share(same, len(both)),
        only_first=only_first,
        only_second=only_second,
        real=len(real),
        normal=len(normal),
        first=_side(first_bundle_id, found, real, normal, lambda item: item.first),
        second=_side(second_bundle_id, found, real, normal, lambda item: item.second),
        problems=tuple(_problems(found, both, real, normal)),
    )


def changed(found: Sequence[ComparedSample], most: int) -> list[ComparedSample]:
    """Return the samples with another decision, those whose p-values differ most first."""
    differing = [item for item in found if item.first.decision is not item.second.decision]
    return sorted(differing, key=lambda item: (-_distance(item), item.sample_number))[:most]


def raised_by_one(items: Sequence[ComparedSample]) -> tuple[int, int]:
    """Return how many samples only the first bundle raises, and how many only the second."""
    first = sum(item.first.is_anomalous and not item.second.is_anomalous for item in items)
    second = sum(item.second.is_anomalous and not item.first.is_anomalous for item in items)
    return first, second


def raised(answers: Sequence[Answer]) -> ShareFigures:
    """Return the share of answers that raise their sample."""
    return share(sum(answer.is_anomalous for answer in answers), len(answers))


def share(hits: int, count: int) -> ShareFigures:
    """Return a share with its Wilson interval."""
    if not count:
        return ShareFigures(hits=0, count=0, value=None, low=None, high=None)
    value, z2 = hits / count, Z * Z
    middle = (value + z2 / (2 * count)) / (1 + z2 / count)
    width = Z * math.sqrt(value * (1 - value) / count + z2 / (4 * count * count)) / (1 + z2 / count)
    low, high = (0.0 if not hits else max(0.0, middle - width)), (1.0 if hits == count else min(1.0, middle + width))
    return ShareFigures(hits=hits, count=count, value=value, low=low, high=high)


def auroc_of(normal: Sequence[Answer], anomalous: Sequence[Answer]) -> tuple[float | None, float | None, float | None]:
    """Return the AUROC of one bundle's p-values with its interval; None without samples of both kinds."""
    if not normal or not anomalous:
        return None, None, None
    auroc = separation(surprise(normal), surprise(anomalous))
    return auroc, *auroc_interval(auroc, len(anomalous), len(normal))


def surprise(answers: Sequence[Answer]) -> NDArray[np.float64]:
    """Return -log10 p (n,) of answers, higher for more anomalous samples."""
    return np.array([-log_p(answer) for answer in answers], np.float64)


def auroc_interval(auroc: float, anomalous: int, normal: int) -> tuple[float, float]:
    """Return the interval of an AUROC that was measured on these numbers of samples."""

    def excluded(true: float) -> bool:
        size = (anomalous + normal) / 2
        variance = true * (1 - true) / (anomalous * normal)
        variance *= 1 + (size - 1) * ((1 - true) / (2 - true) + true / (1 + true))
        return abs(true - auroc) > Z * math.sqrt(variance) + 1e-12

    return crossing(0.0, auroc, excluded), crossing(1.0, auroc, excluded)


def _side(
    bundle_id: str,
    found: Sequence[ComparedSample],
    real: Sequence[ComparedSample],
    normal: Sequence[ComparedSample],
    answer: Callable[[ComparedSample], Answer],
) -> SideFigures:
    answers_on_real, answers_on_normal = [answer(item) for item in real], [answer(item) for item in normal]
    auroc, low, high = auroc_of(answers_on_normal, answers_on_real)
    times = sorted(answer(item).latency_ms for item in found)
    return SideFigures(
        bundle_id=bundle_id,
        anomalous=sum(answer(item).is_anomalous for item in found),
        undecided=sum(answer(item).decision is Decision.UNDECIDED for item in found),
        auroc=auroc,
        auroc_low=low,
        auroc_high=high,
        found=raised(answers_on_real),
        false_alarms=raised(answers_on_normal),
        latency_median_ms=median(times) if times else None,
        latency_p95_ms=times[min(len(times) - 1, int(0.95 * len(times)))] if times else None,
    )


def _problems(
    found: Sequence[ComparedSample],
    both: Sequence[ComparedSample],
    real: Sequence[ComparedSample],
    normal: Sequence[ComparedSample],
) -> list[str]:
    said = []
    if min(len(real), len(normal)) < MIN_LABELLED:
        said.append(
            f"Too few labelled samples: {len(real)} real and {len(normal)} false alarms. Label at least {MIN_LABELLED} "
            "of each in the review before you decide by AUROC, found anomalies and false alarms."
        )
    if len(found) > len(both):
        said.append(
            f"{len(found) - len(both)} samples could not be judged by both bundles; they are left out of agreement and "
            "of the figures on labels."
        )
    return said


def log_p(answer: Answer) -> float:
    """Return the decimal logarithm of the p-value of an answer; 0 without one."""
    return math.log10(max(answer.p_value if answer.p_value is not None else 1.0, MIN_P_VALUE))


def _distance(item: ComparedSample) -> float:
    return abs(log_p(item.first) - log_p(item.second))
