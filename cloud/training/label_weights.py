"""Weights of fused members chosen by cross-validation on labels.

The member that learns from labels is fitted without the labels of a fold, and all members score the labels of the
fold. A weighting is as good as the rank of left-out defects among the pool of held-out normals and left-out false
alarms: the mean of log(1 + number of the pool that scores at least as high). The candidates are a few weights of the
learning member times a few mixes of the others: all of them, and all but one. With d labelled defects the weight of the
learning member is at most d / (d + 5): defects of other kinds are left to the others.

The choice follows the one standard error rule (Breiman, Friedman, Olshen & Stone, "Classification and Regression Trees"
(1984), section 3.4.3): of the candidates within a standard error of the best, the first in the order of PREFERRED, with
all other members. Without labels the learning member does not exist, so its weight is zero.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud.methods import ANALYZERS, AnyAnalyzer
from cloud.methods.encoders import Encoder
from cloud.serving.encoding import Samples
from cloud.serving.scoring import joined_scores, score_blocks
from cloud.training.fitting import FitPlan, FittedAnalyzers, fit_methods
from shared.calibration import Calibration

FOLDS = 5
MAX_POOL_IMAGES = 60  # held-out images or clips in the pool: each is hundreds of vectors
DEFECTS_FOR_HALF = 5  # labelled defects with which the learning member has half of the weight at most
PREFERRED = (0.5, 0.75, 0.25, 0.9, 0.0)  # weights of the learning member, the preferred one first

Surprises = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class LabelFold:
    """-log p of members on the pool of normals (n,) and on left-out defects (d,), by member."""

    pool: Surprises
    defects: Surprises


@dataclass(frozen=True)
class LabelWeighing:
    """Samples that members are weighed on.

    `chosen`: positions of the held-out samples in the pool; the others calibrate the fusion, whose p-values stay valid
    because no weight depends on them. `false_alarms`: labelled ones; those that are among `normals` join the pool.
    """

    encoder: Encoder | None
    normals: Samples
    held_out: Samples
    chosen: NDArray[np.intp]
    defects: Samples
    false_alarms: Samples | None
    plan: FitPlan

    def weights(self, fitted: FittedAnalyzers, learner: str, prior: Mapping[str, float]) -> dict[str, float]:
        """Return the weight of each member; `prior`: weights of the members other than `learner` without labels."""
        return choose_weights(list(self._folds(fitted, learner, list(prior))), learner, prior)

    def _folds(self, fitted: FittedAnalyzers, learner: str, others: Sequence[str]) -> Iterator[LabelFold]:
        """Yield the folds. Quick members are fitted without the labels of a fold, networks are not repeated."""
        quick = [name for name in others if ANALYZERS[name].is_quick]
        kept = {name: fitted.without_held_out[name] for name in others if name not in quick}
        chosen = self.chosen if self.encoder is None else self.chosen[:MAX_POOL_IMAGES]
        held_out = self.held_out.at(chosen)
        alarms = self._learned_alarms()
        of_alarm = positions_in(alarms, self.normals)
        parts = min(FOLDS, len(self.defects))
        for fold in range(parts):
            out, out_alarms = (np.arange(len(each)) % parts == fold for each in (self.defects, alarms))
            known = self.normals.at(~np.isin(of_alarm, np.flatnonzero(out_alarms)))
            fresh = fit_methods(self.encoder, known, [learner, *quick], self.plan, self.defects.at(~out))
            members = kept | fresh
            normal = self._scores(members, held_out)
            calibrations = {name: Calibration.fit(scores) for name, scores in normal.items()}
            left_out = self._scores(members, alarms.at(out_alarms))
            pool = {name: np.concatenate([scores, left_out[name]]) for name, scores in normal.items()}
            defects = self._scores(members, self.defects.at(out))
            yield LabelFold(*(_surprises(calibrations, scores) for scores in (pool, defects)))

    def _learned_alarms(self) -> Samples:
        """Return the labelled false alarms that are among the normal samples."""
        if self.false_alarms is None:
            return self.normals.at(slice(0, 0))
        found = positions_in(self.false_alarms, self.normals)
        return self.false_alarms.at(np.unique(found[found >= 0]))

    def _scores(self, analyzers: Mapping[str, AnyAnalyzer], samples: Samples) -> dict[str, NDArray[np.float64]]:
        blocks = score_blocks(self.encoder, analyzers, samples, self.plan.device)
        return joined_scores(list(analyzers), [outputs for _, outputs in blocks])


def choose_weights(folds: Sequence[LabelFold], learner: str, prior: Mapping[str, float]) -> dict[str, float]:
    """Return the weights with the best ranks of left-out defects, by the one standard error rule."""
    total = sum(prior.values())
    usual = {name: weight / total if total > 0 else 1.0 / len(prior) for name, weight in prior.items()}
    count = sum(len(fold.defects[learner]) for fold in folds)
    most = count / (count + DEFECTS_FOR_HALF)
    mixes = [usual]
    for left_out in usual if len(usual) > 1 else ():
        rest = 1.0 - usual[left_out]
        if 0.0 < rest < 1.0:
            mixes.append({name: 0.0 if name == left_out else weight / rest for name, weight in usual.items()})
    candidates = [
        {name: (1.0 - own) * weight for name, weight in mix.items()} | {learner: own}
        for mix in mixes
        for own in PREFERRED
        if own <= most
    ]
    losses = np.array([np.concatenate([_losses(fold, weights) for fold in folds]) for weights in candidates])
    means = losses.mean(axis=1)
    best = int(means.argmin())
    # The standard error of the difference to the best, since all candidates are measured on the same defects.
    errors = (losses - losses[best]).std(axis=1) / np.sqrt(losses.shape[1])
    near = np.flatnonzero(means - means[best] <= errors)
    return candidates[int(near[0])]


def _surprises(calibrations: Mapping[str, Calibration], scores: Mapping[str, NDArray[np.float64]]) -> Surprises:
    return {name: calibration.surprise(scores[name]) for name, calibration in calibrations.items()}


def _losses(fold: LabelFold, weights: Mapping[str, float]) -> NDArray[np.float64]:
    """Return log(1 + number of the pool that scores at least as high) for each defect (d,); ties count half."""
    pool, defects = (
        np.sum([weight * values[name] for name, weight in weights.items()], axis=0)
        for values in (fold.pool, fold.defects)
    )
    ordered = np.sort(pool)
    below, up_to = (np.searchsorted(ordered, defects, side=side) for side in ("left", "right"))
    result: NDArray[np.float64] = np.log1p(len(ordered) - (below + up_to) / 2)
    return result


def positions_in(chosen: Samples, normals: Samples) -> NDArray[np.intp]:
    """Return the position (n,) in `chosen` of each normal sample with the same inputs, -1 for all others."""
    known = {row.tobytes(): position for position, row in enumerate(chosen.inputs)}
    return np.array([known.get(row.tobytes(), -1) for row in normals.inputs], dtype=np.intp)
