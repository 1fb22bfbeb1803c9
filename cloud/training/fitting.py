"""Fitting of the analyzers of a bundle, and their scores of held-out normal samples.

Methods that train networks are fitted on the training part alone. The others are quick (`is_quick`) and learn from the
held-out samples as well. These are split into folds; each fold is scored by methods fitted on the training part and the
other folds. The methods in the bundle are fitted on all normal samples. Held-out and new samples are then compared with
nearly as many normal samples, which keeps p-values uniform (Vovk, "Cross-conformal predictors", 2015).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.methods import ANALYZERS, AnyAnalyzer, FitContext, Need, PlaceScaled
from cloud.methods.encoders import Encoder
from cloud.serving.encoding import Samples
from cloud.serving.scoring import ScoredBlock, joined_scores, score_blocks
from cloud.training.modalities import training_modality
from shared.diffusion.training import Progress

QUICK_SHARE = 0.2  # share of the progress for quick methods
COPIES_SHARE = 0.4  # share of a fit's progress for encoding corrupted copies of images
QUICK_WEIGHT = 0.05  # progress of fitting a quick method, in that of a method that trains a network


@dataclass(frozen=True, slots=True)
class FitPlan:
    """Methods to fit, with device and seed.

    `folds`: number of folds of the held-out samples for quick methods. With 1 they are scored as a whole before the
    methods learn from them; with 0 no method learns from them. `effort`: share of the training steps to run,
    and of the pixels in corrupted copies of images. `defects`: samples that people labelled as defects, for the methods
    that need them.
    """

    methods: Sequence[str]
    device: torch.device
    seed: int
    folds: int
    effort: float = 1.0
    defects: Samples | None = None


@dataclass(frozen=True)
class FittedAnalyzers:
    """Fitted `analyzers` by name, and the same methods `without_held_out`, fitted on the training part alone.

    `blocks`: the held-out samples with each analyzer's output. `scores`: (held out,) by analyzer, in the order of the
    samples. Both are from analyzers that did not learn from the sample.
    """

    analyzers: dict[str, AnyAnalyzer]
    without_held_out: dict[str, AnyAnalyzer]
    blocks: list[ScoredBlock]
    scores: dict[str, NDArray[np.float64]]


def fit_analyzers(
    encoder: Encoder | None, normals: Samples, held_out: Samples, plan: FitPlan, progress: Progress
) -> FittedAnalyzers:
    """Fit on the `normals`; quick methods with folds learn from the held-out samples as well."""
    quick = [name for name in plan.methods if ANALYZERS[name].is_quick and plan.folds]
    slow = [name for name in plan.methods if name not in quick]
    first = fit_methods(
        encoder, normals, [*slow, *quick], plan, plan.defects, lambda share: progress((1.0 - QUICK_SHARE) * share)
    )
    trained = {name: first[name] for name in slow}
    folds = _folds(len(held_out), plan.folds)
    blocks: list[ScoredBlock] = []
    for index, fold in enumerate(folds):
        members = first
        if len(folds) > 1 and quick:
            others = np.setdiff1d(np.arange(len(held_out)), fold)
            members = trained | fit_methods(encoder, normals.joined(held_out.at(others)), quick, plan, plan.defects)
        samples = held_out if len(folds) == 1 else held_out.at(fold)
        blocks += score_blocks(encoder, members, samples, plan.device)
        progress(1.0 - QUICK_SHARE + QUICK_SHARE * (index + 1) / (len(folds) + 1))
    order = np.argsort(np.concatenate(folds))
    joined = joined_scores(plan.methods, [outputs for _, outputs in blocks])
    scores = {name: values[order] for name, values in joined.items()}
    final = trained | fit_methods(encoder, normals.joined(held_out), quick, plan, plan.defects) if quick else first
    final, first = ({name: fitted[name] for name in plan.methods} for fitted in (final, first))
    return FittedAnalyzers(final, first, blocks, scores)


def _folds(count: int, folds: int) -> list[NDArray[np.intp]]:
    """Split the positions 0 to `count` - 1 into folds, at least one."""
    parts = min(max(folds, 1), max(count, 1))
    return [np.arange(first, count, parts) for first in range(parts)]


def fit_methods(
    encoder: Encoder | None,
    normals: Samples,
    methods: Sequence[str],
    plan: FitPlan,
    defects: Samples | None = None,
    progress: Progress = lambda share: None,
) -> dict[str, AnyAnalyzer]:
    """Return the analyzers by name, fitted on normal samples; `defects` for methods that learn from labels."""
    if not methods:
        return {}
    modality = training_modality(normals.preprocessor.modality)
    features = normals.fit_features(encoder, plan.device, torch.Generator().manual_seed(plan.seed))
    context, start = FitContext(plan.seed, effort=plan.effort), 0.0
    if any(Need.CORRUPTED_COPIES in ANALYZERS[name].needs for name in methods):
        context.corrupted = modality.corrupted_patches(
            encoder, normals.inputs, plan.seed % 2**32, plan.effort, lambda share: progress(COPIES_SHARE * share)
        )
        start = COPIES_SHARE if context.corrupted is not None else 0.0
    if defects is not None and any(Need.DEFECTS in ANALYZERS[name].needs for name in methods):
        context.defects = defects.features(encoder, plan.device)
    analyzers: dict[str, AnyAnalyzer] = {}
    weights = [QUICK_WEIGHT if ANALYZERS[name].is_quick else 1.0 for name in methods]
    ends = start + (1.0 - start) * np.cumsum(weights) / sum(weights)
    for name, first, last in zip(methods, [start, *ends], ends, strict=False):
        plain = ANALYZERS[name]()
        analyzer: AnyAnalyzer = plain
        if modality.scales_places and plain.is_place_scaled:
            analyzer = PlaceScaled(plain)
        analyzer.fit(features, context, progress=_between(progress, float(first), float(last)))
        analyzers[name] = analyzer.to(plan.device)
    return analyzers


def _between(progress: Progress, first: float, last: float) -> Progress:
    """Return the progress of a stage from `first` to `last`."""
    return lambda share: progress(first + (last - first) * share)
