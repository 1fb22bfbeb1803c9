"""Figures of a running bundle and a candidate on the frozen set, and the conclusion on the candidate.

The running bundle chose most of the set itself: samples without a label are those that it judged normal, and labelled
false alarms are those that it raised. Its false alarms without a label are missing, so its count is at most too small,
and the comparison errs against the candidate. Intervals are those of `cloud.comparison.figures`.
"""

import math
from collections.abc import Callable, Sequence
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from cloud.comparison.figures import MIN_LABELLED, ShareFigures, auroc_of, raised, raised_by_one, share, surprise
from cloud.metrics import false_alarms_at
from cloud.store.comparison_samples import ANOMALOUS, Answer, ComparedSample
from cloud.store.labels import Label

LEVEL = 0.05  # of the sign test on samples with different decisions


class Conclusion(StrEnum):
    """Conclusion on a candidate."""

    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "no clear difference"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class FrozenSide(_Frozen):
    """Figures of one bundle on the frozen set.

    `false_alarms` counts all frozen normals, `dismissed` labelled false alarms alone, `found` labelled defects.
    `at_equal_recall`: false alarms with the threshold at which the bundle finds as many defects as the running one.
    """

    bundle_id: str
    false_alarms: ShareFigures
    dismissed: ShareFigures
    found: ShareFigures
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None
    at_equal_recall: ShareFigures


class FrozenFigures(_Frozen):
    """Comparison on the frozen set; `sentences` and `problems` are for people."""

    judged: int
    undecided: int
    false_alarm_rate: float
    running: FrozenSide
    candidate: FrozenSide
    conclusion: Conclusion
    sentences: tuple[str, ...]
    problems: tuple[str, ...]


def frozen_figures(
    found: Sequence[ComparedSample], running_id: str, candidate_id: str, false_alarm_rate: float
) -> FrozenFigures:
    """Return the figures of judged samples, `first` by the running bundle and `second` by the candidate."""
    both = [item for item in found if item.is_judged]
    defects = [item for item in both if item.label in ANOMALOUS]
    normals = [item for item in both if item.label not in ANOMALOUS]
    recalled = sum(item.first.is_anomalous for item in defects)
    running = _side(running_id, normals, defects, recalled, lambda item: item.first)
    candidate = _side(candidate_id, normals, defects, recalled, lambda item: item.second)
    conclusion = _conclusion(normals, defects, candidate, false_alarm_rate)
    return FrozenFigures(
        judged=len(found),
        undecided=len(found) - len(both),
        false_alarm_rate=false_alarm_rate,
        running=running,
        candidate=candidate,
        conclusion=conclusion,
        sentences=tuple(_sentences(running, candidate, conclusion, false_alarm_rate)),
        problems=tuple(_problems(running, len(found) - len(both))),
    )


def sign_test(fewer: int, more: int) -> float:
    """Return the chance of at most `fewer` heads in `fewer + more` throws of a fair coin."""
    total = fewer + more
    return float(sum(math.comb(total, count) for count in range(fewer + 1)) / 2**total)


def _side(
    bundle_id: str,
    normals: Sequence[ComparedSample],
    defects: Sequence[ComparedSample],
    recalled: int,
    answer: Callable[[ComparedSample], Answer],
) -> FrozenSide:
    on_normals, on_defects = [answer(item) for item in normals], [answer(item) for item in defects]
    auroc, low, high = auroc_of(on_normals, on_defects)
    at_recall = false_alarms_at(surprise(on_normals), surprise(on_defects), recalled)
    return FrozenSide(
        bundle_id=bundle_id,
        false_alarms=raised(on_normals),
        dismissed=raised([answer(item) for item in normals if item.label is Label.FALSE_ALARM]),
        found=raised(on_defects),
        auroc=auroc,
        auroc_low=low,
        auroc_high=high,
        at_equal_recall=share(at_recall, len(normals) if recalled else 0),
    )


def _conclusion(
    normals: Sequence[ComparedSample], defects: Sequence[ComparedSample], candidate: FrozenSide, rate: float
) -> Conclusion:
    """Return the conclusion by sign tests; more false alarms, clearly beyond the promised rate, are worse, too.

    Labelled false alarms are frequent in the frozen set, because the running bundle chose them: a rate beyond the
    promise says nothing against a candidate that raises no more of the set.
    """
    lost, gained = raised_by_one(defects)
    fewer, more = raised_by_one(normals)
    misses_more = lost > gained and sign_test(gained, lost) <= LEVEL
    raises_more = more > fewer and sign_test(fewer, more) <= LEVEL
    breaks_promise = (candidate.false_alarms.low or 0.0) > rate and more > fewer
    if misses_more or raises_more or breaks_promise:
        return Conclusion.WORSE
    finds_more = gained > lost and sign_test(lost, gained) <= LEVEL
    raises_fewer = fewer > more and sign_test(more, fewer) <= LEVEL
    return Conclusion.BETTER if finds_more or raises_fewer else Conclusion.UNCLEAR


def _sentences(running: FrozenSide, candidate: FrozenSide, conclusion: Conclusion, rate: float) -> list[str]:
    said = [
        f"False alarms at the promised rate of {rate:.2%}: {_of(running.false_alarms)} before, "
        f"{_of(candidate.false_alarms)} now."
    ]
    if running.dismissed.count:
        said.append(
            f"Labelled false alarms that are raised: {_of(running.dismissed)} before, {_of(candidate.dismissed)} now."
        )
    if running.found.count:
        said.append(f"Labelled defects found: {_of(running.found)} before, {_of(candidate.found)} now.")
    if running.auroc is not None and candidate.auroc is not None:
        said.append(f"AUROC of defects against normals: {running.auroc:.3f} before, {candidate.auroc:.3f} now.")
    if running.at_equal_recall.count:
        said.append(
            f"At equal recall: {running.at_equal_recall.hits} false alarms before, "
            f"{candidate.at_equal_recall.hits} now."
        )
    said.append(f"The candidate is {_WORDS[conclusion]}")
    return said


_WORDS = {
    Conclusion.BETTER: "better than the running bundle.",
    Conclusion.WORSE: "worse than the running bundle.",
    Conclusion.UNCLEAR: "not clearly different from the running bundle on this set.",
}


def _problems(running: FrozenSide, undecided: int) -> list[str]:
    said = []
    if min(running.found.count, running.dismissed.count) < MIN_LABELLED:
        said.append(
            f"The frozen set has {running.found.count} labelled defects and {running.dismissed.count} labelled false "
            f"alarms: label more in the review, until it has {MIN_LABELLED} of each."
        )
    if undecided:
        said.append(f"{undecided} frozen samples could not be judged by both bundles and are left out.")
    return said


def _of(figures: ShareFigures) -> str:
    if figures.low is None or figures.high is None:
        return "none"
    return f"{figures.hits} of {figures.count} ({100 * figures.low:.1f} to {100 * figures.high:.1f} %)"
