"""Judgement of one training run, from its split, its analysis and its preferred artefact."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.serving.analysis import FUSED, Analysis
from cloud.training.judgement.copies import count_copies
from cloud.training.judgement.figures import SAMPLES_PER_DAY, Drift, Figures, HeldOutResolution
from cloud.training.judgement.measure import Corrupted, Judges, drift, measure
from cloud.training.judgement.words import sentences, warnings_of
from cloud.training.modalities.base import TrainingModality
from cloud.training.samples import SampleRate, Split
from cloud.training.settings import JudgementSettings, TrainingSettings
from shared.bundle import Artefact
from shared.calibration_modes import CalibrationByMode
from shared.diffusion.training import Progress
from shared.engines import EngineConfiguration, open_graph, run_graph, weights_path
from shared.preprocessing import Preprocessor, modes_of

MIN_LIMIT_S, LIMIT_SHARE = 5.0, 0.1  # time for judging corrupted copies: seconds, and share of the training so far


@dataclass(frozen=True, slots=True)
class Judgement:
    """Judgement of a training run. `copies`: the judged corrupted copies by kind, for pictures."""

    figures: Figures
    copies: Mapping[str, Corrupted]

    @property
    def sentences(self) -> list[str]:
        """Judgement in sentences, without warnings."""
        return sentences(self.figures)

    @property
    def warnings(self) -> list[str]:
        """A sentence for each figure beyond its documented bound."""
        return warnings_of(self.figures)

    def to_json(self) -> dict[str, Any]:
        """Return text and figures as the manifest stores them."""
        return {
            "sentences": self.sentences,
            "warnings": self.warnings,
            "figures": self.figures.model_dump(mode="json"),
        }


@dataclass(frozen=True, slots=True)
class PreferredScreener:
    """Artefact that devices prefer, on its engine."""

    preprocessor: Preprocessor
    artefact: Artefact
    files: Mapping[str, bytes]

    def judges(self, analysis: Analysis) -> tuple[Judges, Any]:
        """Return p-values by screener and by fused verdict, and the screener's scores, as functions of samples."""
        weights = weights_path(self.artefact.graph)
        engine = open_graph(
            self.artefact.engine,
            self.files[self.artefact.graph],
            None if weights is None else self.files[weights],
            EngineConfiguration(),
        )
        calibration = CalibrationByMode.from_arrays(_arrays(self.files[self.artefact.calibration]))
        spec = self.preprocessor.spec

        def scores(samples: NDArray[Any]) -> NDArray[np.float64]:
            inputs = self.preprocessor.prepare_for_engine(samples).inputs
            return run_graph(engine, inputs).scores.astype(np.float64)

        def screener(samples: NDArray[Any]) -> NDArray[np.float64]:
            modes = modes_of(self.preprocessor.prepare_for_engine(samples).inputs, spec)
            return calibration.p_values(scores(samples), modes).values

        def fused(samples: NDArray[Any]) -> NDArray[np.float64]:
            modes = modes_of(self.preprocessor.prepare(samples).inputs, spec)
            return analysis.p_values(analysis.score(samples)[FUSED], modes)

        return Judges(screener, fused), scores


def judge(
    modality: TrainingModality,
    split: Split,
    settings: TrainingSettings,
    screener: PreferredScreener,
    analysis: Analysis,
    trained_s: float,
    progress: Progress = lambda share: None,
) -> Judgement:
    """Judge a trained screener and its analysis, without a label, in about a tenth of the training time.

    `analysis`: the one that did not learn from the held-out samples. `trained_s`: seconds that the training took.
    """
    asked, held_out = settings.judgement, split.held_out
    rate = sample_rate(asked, split)
    resolution = HeldOutResolution(
        held_out=len(held_out),
        separate=max(1, len(held_out) // (_overlap(held_out) if modality.is_ordered else 1)),
        held_out_share=settings.data.held_out_share,
        false_alarms_per_day=asked.false_alarms_per_day,
        samples_per_day=rate.per_day,
        rate_origin=rate.origin,
    )
    judges, scores = screener.judges(analysis)
    copies = modality.corrupted_copies(held_out, split.spec, settings.seed)
    measured = measure(copies, judges, max(MIN_LIMIT_S, LIMIT_SHARE * trained_s), progress)
    figures = Figures(
        unit=modality.sample_word,
        train=len(split.train),
        resolution=resolution,
        corruptions=measured.figures(resolution.rate, asked.verdict_rate, asked.forward_p_value),
        verdict_rate=asked.verdict_rate,
        forward_p_value=asked.forward_p_value,
        audit_share=asked.audit_share,
        drift=_drift(modality, split, scores(held_out), asked.forward_p_value),
        copies=count_copies(split.train, held_out, has_time=modality.has_time),
        max_copied_share=asked.max_copied_share,
        unfinished=measured.unfinished,
    )
    return Judgement(figures, measured.copies)


def sample_rate(asked: JudgementSettings, split: Split) -> SampleRate:
    """Return the rate of the source: as set, else from the times of the data, else one sample a minute."""
    if asked.samples_per_day > 0:
        return SampleRate(asked.samples_per_day, "judgement.samples_per_day")
    return split.rate if split.rate is not None else SampleRate(SAMPLES_PER_DAY, "")


def _drift(modality: TrainingModality, split: Split, scores: NDArray[np.float64], forward_p_value: float) -> Drift:
    """Return the drift of the normals: between both parts if they follow one another, else within the held-out part."""
    held_out = split.held_out
    if split.held_out_order is not None:
        order = np.argsort(split.held_out_order, kind="stable")
        held_out, scores = held_out[order], scores[order]
    earlier = split.train if modality.is_ordered else held_out
    first = earlier[: max(2, len(earlier) // 3)]
    last = held_out[-max(2, len(held_out) // 3) :]
    names, before = modality.statistics(first, split.spec)
    _, after = modality.statistics(last, split.spec)
    measured = [place for place, name in enumerate(names) if name != split.spec.mode_channel]
    names = tuple(names[place] for place in measured)
    return drift(names, before[:, measured], after[:, measured], scores, forward_p_value)


def _overlap(windows: NDArray[Any]) -> int:
    """Return how many windows (n, length, channels) share readings with each one; 1: none."""
    if len(windows) < 2:
        return 1
    first, second = np.nan_to_num(windows[0]), np.nan_to_num(windows[1])
    length = len(first)
    step = next((step for step in range(1, length) if np.array_equal(first[step:], second[: length - step])), length)
    return max(1, length // step)


def _arrays(data: bytes) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)
