"""Fitting of a bundle's analysis: analyzers, their fusion and the scales of explanations."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.methods import BASELINES, AnyAnalyzer
from cloud.methods.defaults.defect_likeness import DefectLikeness
from cloud.methods.encoders import Encoder
from cloud.methods.fusion import Fusion, halves
from cloud.modalities import cloud_modality
from cloud.serving.analysis import Analysis
from cloud.serving.device import pick_device
from cloud.serving.encoding import Samples
from cloud.serving.explanations import RESIDUAL, as_array
from cloud.serving.maps import Scale
from cloud.serving.scoring import ScoredBlock
from cloud.training.fitting import FitPlan, FittedAnalyzers, fit_analyzers
from cloud.training.label_weights import LabelWeighing, positions_in
from cloud.training.labelled import MIN_DEFECTS, NO_LABELS, LabelledSamples
from cloud.training.modalities import training_modality
from cloud.training.worth import member_worth
from shared.calibration import MIN_CALIBRATION_SIZE
from shared.diffusion.training import Progress
from shared.errors import DataError
from shared.preprocessing import Preprocessor


@dataclass(frozen=True, slots=True)
class AnalysisOptions:
    """How an analysis is fitted.

    `methods`: the analyzers to fit; empty: those of the modality, and the baselines. `fused`: the analyzers whose
    opinions make the verdict; empty: those of the modality if `methods` is empty, else all. With `learn_held_out`,
    analyzers that are fitted in seconds also learn from the held-out samples. `effort`: factor on training steps.
    """

    methods: Sequence[str] = ()
    fused: Sequence[str] = ()
    seed: int = 0
    device: str = "auto"
    learn_held_out: bool = True
    effort: float = 1.0


@dataclass(frozen=True, slots=True)
class FittedAnalysis:
    """A calibrated `analysis`, and `without_held_out`, the same before it learned from the held-out samples.

    The second one teaches the screener, which is calibrated on the held-out samples, and is measured on them.
    """

    analysis: Analysis
    without_held_out: Analysis


def fit_analysis(
    preprocessor: Preprocessor,
    encoder: Encoder | None,
    train: NDArray[Any],
    held_out: NDArray[Any],
    options: AnalysisOptions,
    progress: Progress | None = None,
    labelled: LabelledSamples = NO_LABELS,
) -> FittedAnalysis:
    """Fit the analyzers on normal samples (n, ...), and calibrate them and their fusion on held-out ones.

    `encoder` is for images and clips, None otherwise. The two sets must not share samples, or p-values come out too
    small. With enough `labelled` defects the fusion gets a member that learns from them, and labels weigh its members.
    Samples that cannot be prepared are left out. Raises DataError if either set is too small.
    """
    report = progress or (lambda share: None)
    normals, apart = Samples.prepare(preprocessor, train), Samples.prepare(preprocessor, held_out)
    if len(normals) < 2:
        raise DataError(f"Analyzers need at least 2 normal samples to learn from, not {len(normals)}.")
    fit = AnalysisFit(encoder, normals, apart, options, *_prepared(preprocessor, labelled))
    fit.learn_false_alarms()
    fit.fit_analyzers(report)
    fit.weigh_members()
    fit.fuse()
    fit.fit_scales()
    report(1.0)
    return fit.result()


@dataclass
class AnalysisFit:
    """State of one fit. Its methods are the stages, called in the order in which they are defined."""

    encoder: Encoder | None
    normals: Samples
    held_out: Samples
    options: AnalysisOptions
    defects: Samples | None = None
    false_alarms: Samples | None = None
    plan: FitPlan = field(init=False)
    fused: tuple[str, ...] = field(init=False)
    fitted: FittedAnalyzers = field(init=False)
    worth: dict[str, float] = field(init=False, default_factory=dict)
    fusion: Fusion = field(init=False)
    scales: dict[str, Scale] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        options, modality = self.options, self.preprocessor.modality
        methods, self.fused = tuple(options.methods), tuple(options.fused)
        if not methods:
            defaults = cloud_modality(modality).default_methods
            self.fused = self.fused or defaults
            methods = tuple(dict.fromkeys((*defaults, *BASELINES)))
        if self.defects is not None:
            self.fused = tuple(dict.fromkeys((*(self.fused or methods), DefectLikeness.name)))
            methods = tuple(dict.fromkeys((*methods, DefectLikeness.name)))
        folds = training_modality(modality).folds if options.learn_held_out else 0
        device = pick_device(options.device)
        self.plan = FitPlan(methods, device, options.seed, folds, options.effort, self.defects)

    @property
    def preprocessor(self) -> Preprocessor:
        """Preprocessing of all samples."""
        return self.normals.preprocessor

    def learn_false_alarms(self) -> None:
        """Move labelled false alarms from the held-out samples to the normal ones, unless folds score them.

        Without folds a held-out sample is scored by analyzers that have not learned from it, although the final ones
        do. A few labelled false alarms, which scored high, would then push the threshold beyond most anomalies.
        """
        if self.plan.folds > 1 or self.false_alarms is None:
            return
        is_alarm = positions_in(self.false_alarms, self.held_out) >= 0
        if np.count_nonzero(~is_alarm) >= MIN_CALIBRATION_SIZE:
            self.normals = self.normals.joined(self.held_out.at(is_alarm))
            self.held_out = self.held_out.at(~is_alarm)

    def fit_analyzers(self, progress: Progress) -> None:
        """Fit the analyzers, and score the held-out samples with analyzers that did not learn from them."""
        self.fitted = fit_analyzers(self.encoder, self.normals, self.held_out, self.plan, progress)

    def weigh_members(self) -> None:
        """Measure the worth of each fused analyzer on changed copies of held-out samples, and on labels."""
        fused = self.fused or self.plan.methods
        unlabelled = [name for name in fused if name != DefectLikeness.name]
        self.worth = member_worth(self.encoder, self.fitted, unlabelled, self.held_out, self.plan)
        if self.defects is not None:
            in_order = training_modality(self.preprocessor.modality).is_ordered
            first, _ = halves(len(self.held_out), self.held_out.modes(), in_order)  # the second calibrates the fusion
            weighing = LabelWeighing(
                self.encoder, self.normals, self.held_out, first, self.defects, self.false_alarms, self.plan
            )
            prior = {name: self.worth.get(name, 0.0) for name in unlabelled}
            self.worth = weighing.weights(self.fitted, DefectLikeness.name, prior)

    def fuse(self) -> None:
        """Calibrate the analyzers and their fusion."""
        in_order = training_modality(self.preprocessor.modality).is_ordered
        modes = self.held_out.modes()
        self.fusion = Fusion.fit(self.fitted.scores, modes, self.fused, in_order=in_order, worth=self.worth)

    def fit_scales(self) -> None:
        """Fit the scales of maps and contributions."""
        self.scales = explanation_scales(self.fitted.blocks)

    def result(self) -> FittedAnalysis:
        """Return both analyses."""
        return FittedAnalysis(self._with(self.fitted.analyzers), self._with(self.fitted.without_held_out))

    def _with(self, analyzers: dict[str, AnyAnalyzer]) -> Analysis:
        return Analysis(self.preprocessor, self.encoder, analyzers, self.fusion, self.scales, self.plan.device)


def _prepared(preprocessor: Preprocessor, labelled: LabelledSamples) -> tuple[Samples | None, Samples | None]:
    """Return labelled defects and false alarms that can be used; None without any, or with too few defects."""
    defects, false_alarms = (
        Samples.prepare(preprocessor, list(values)) if len(values) else None
        for values in (labelled.defects, labelled.false_alarms)
    )
    return defects if defects is not None and len(defects) >= MIN_DEFECTS else None, false_alarms


def explanation_scales(held_out: Sequence[ScoredBlock]) -> dict[str, Scale]:
    """Return the scale of each analyzer's maps on normal images, or of the deviations of each feature or channel."""
    values: dict[str, list[NDArray[np.float64]]] = {}
    for samples, outputs in held_out:
        for name, output in outputs.items():
            if output.maps is not None:
                values.setdefault(name, []).append(as_array(output.maps).reshape(-1, 1))
        deviations = cloud_modality(samples.preprocessor.modality).value_deviations(samples, outputs)
        if deviations is not None:
            values.setdefault(RESIDUAL, []).append(deviations.reshape(-1, deviations.shape[-1]))
    return {name: Scale.fit(np.concatenate(parts)) for name, parts in values.items()}
