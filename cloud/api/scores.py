"""Scores of samples: one result per sample, also for samples that cannot be judged."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from cloud.serving.analysis import FUSED, Analysis
from shared.bundle import Bundle
from shared.calibration_modes import CalibrationByMode
from shared.engines import EngineConfiguration, load_engine, run_graph
from shared.errors import SampleRejected, SettingsError
from shared.modalities import sample_type
from shared.preprocessing import modes_of
from shared.samples import Decision, Values, Verdict

SCREENER = "screener"
FALSE_ALARM_RATE = 0.01  # the default of the service's analysis.false_alarm_rate
MAX_CONTRIBUTIONS = 3


@dataclass(frozen=True, slots=True)
class InputSample:
    """One sample to score; `values` is None if it cannot be read, and `reason` says why.

    `time`: text of the time column, or seconds from the start of a video; empty where there is none.
    """

    id: str
    values: NDArray[Any] | None
    file: str = ""
    time: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SampleScore:
    """Score of one sample; score and p-value are None for an undecided sample, whose `reason` says why.

    `extrapolated`: whether the p-value comes from the fitted tail, beyond what the held-out samples resolve.
    `contributions`: the largest shares by feature, channel or frame, in descending order; each is in [0, 1]. There are
    none where nothing deviates.
    """

    id: str
    file: str
    time: str
    score: float | None
    p_value: float | None
    decision: str
    contributions: tuple[tuple[str, float], ...] = ()
    reason: str = ""
    extrapolated: bool = False


@dataclass(frozen=True, slots=True)
class _Answer:
    """Answer of a method for a sample that it could judge."""

    score: float
    p_value: float
    extrapolated: bool
    shares: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, repr=False)
class Scores(Sequence[SampleScore]):
    """Results of all samples, in input order."""

    samples: tuple[SampleScore, ...]

    @overload
    def __getitem__(self, index: int) -> SampleScore: ...
    @overload
    def __getitem__(self, index: slice) -> "Scores": ...
    def __getitem__(self, index: int | slice) -> "SampleScore | Scores":
        """Return one result, or the results of a slice."""
        return Scores(self.samples[index]) if isinstance(index, slice) else self.samples[index]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    def __repr__(self) -> str:
        """Return the counts: printing thousands of samples helps nobody."""
        count = Counter(each.decision for each in self.samples)
        return f"Scores({len(self)} samples: {', '.join(f'{count[kind]} {kind}' for kind in Decision)})"

    @property
    def scores(self) -> NDArray[np.float64]:
        """Scores (n,), higher for more anomalous samples; NaN for undecided ones."""
        return np.array([math.nan if each.score is None else each.score for each in self.samples])

    @property
    def p_values(self) -> NDArray[np.float64]:
        """Conformal p-values (n,); NaN for undecided samples."""
        return np.array([math.nan if each.p_value is None else each.p_value for each in self.samples])

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """Whether each sample (n,) is decided anomalous."""
        return np.array([each.decision == Decision.ANOMALOUS for each in self.samples], dtype=np.bool_)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dictionary per sample, for example for `pandas.DataFrame`."""
        return [asdict(each) for each in self.samples]


@dataclass
class SampleScorer:
    """Scorer by one method: "fused", the name of an analyzer, or "screener" (needs `bundle`).

    A sample is anomalous if its p-value is at most `false_alarm_rate`. Raises SettingsError for an unknown method or a
    rate outside (0, 1).
    """

    analysis: Analysis
    method: str = FUSED
    false_alarm_rate: float = FALSE_ALARM_RATE
    bundle: Bundle | None = None
    _screener: tuple[Any, CalibrationByMode] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not 0 < self.false_alarm_rate < 1:
            raise SettingsError(f"false-alarm rate: {self.false_alarm_rate:g} is not between 0 and 1.")
        if self.method == SCREENER and self.bundle is not None:
            artefact = self.bundle.manifest.artefact(self.bundle.manifest.preferred_artefact)
            calibration = CalibrationByMode.from_arrays(self.bundle.arrays(artefact.calibration))
            self._screener = load_engine(self.bundle, artefact.name, EngineConfiguration()), calibration
            return
        known = [FUSED, *self.analysis.analyzers, *([SCREENER] if self.bundle is not None else [])]
        if self.method not in known:
            raise SettingsError(f"method: there is no {self.method!r} in this bundle; there are {', '.join(known)}.")

    def score(self, blocks: Iterable[Sequence[InputSample]]) -> Iterator[SampleScore]:
        """Yield one result per sample, in order; only one block is in memory at a time."""
        for block in blocks:
            readable = [sample for sample in block if sample.values is not None]
            answers = iter(self._answers([cast(Values, sample.values) for sample in readable]) if readable else ())
            for sample in block:
                if sample.values is None:
                    yield _undecided(sample, sample.reason)
                else:
                    yield self._result(sample, next(answers))

    def _answers(self, values: Sequence[Values]) -> list[_Answer | SampleRejected]:
        if self._screener is not None:
            return self._screen(values)
        answers: list[_Answer | SampleRejected] = []
        for verdict in self.analysis.judge(self._stacked(values)):
            if not isinstance(verdict, Verdict):
                answers.append(verdict)
            elif self.method == FUSED:
                assert verdict.p_value is not None  # an analysis gives one
                answers.append(_Answer(verdict.score, verdict.p_value, verdict.extrapolated, verdict.contributions))
            else:
                opinion = next(each for each in verdict.opinions if each.analyzer == self.method)
                answers.append(_Answer(opinion.score, opinion.p_value, opinion.extrapolated, verdict.contributions))
        return answers

    def _screen(self, values: Sequence[Values]) -> list[_Answer | SampleRejected]:
        assert self._screener is not None  # the caller checked
        engine, calibration = self._screener
        prepared = self.analysis.preprocessor.prepare_for_engine(self._stacked(values))
        answers: list[_Answer | SampleRejected] = [SampleRejected("was not prepared") for _ in values]
        for position, reason in prepared.rejections:
            answers[position] = SampleRejected(reason)
        if len(prepared.kept):
            scores = run_graph(engine, prepared.inputs).scores.astype(np.float64)
            modes = modes_of(prepared.inputs, self.analysis.preprocessor.spec)
            found = calibration.p_values(scores, modes)
            for position, score, p_value, extrapolated in zip(
                prepared.kept, scores, found.values, found.extrapolated, strict=True
            ):
                answers[position] = _Answer(float(score), float(p_value), bool(extrapolated))
        return answers

    def _stacked(self, values: Sequence[Values]) -> Any:
        """Return rows or windows as one array; images, whose sizes may differ, as they are."""
        has_vectors = sample_type(self.analysis.preprocessor.modality).has_vectors
        return np.stack(values) if has_vectors and len({each.shape for each in values}) == 1 else values

    def _result(self, sample: InputSample, answer: _Answer | SampleRejected) -> SampleScore:
        if isinstance(answer, SampleRejected):
            return _undecided(sample, str(answer))
        score, p_value = answer.score, answer.p_value
        if not (math.isfinite(score) and math.isfinite(p_value)):
            return _undecided(sample, f"the analysis failed: score {score}, p-value {p_value}")
        decision = Decision.ANOMALOUS if p_value <= self.false_alarm_rate else Decision.NORMAL
        shares = sorted((share for share in answer.shares if share[1] > 0), key=lambda share: -share[1])
        return SampleScore(
            sample.id,
            sample.file,
            sample.time,
            score,
            p_value,
            str(decision),
            tuple(shares[:MAX_CONTRIBUTIONS]),
            extrapolated=answer.extrapolated,
        )


def _undecided(sample: InputSample, reason: str) -> SampleScore:
    text = " ".join(reason.split()) or "cannot be read"
    return SampleScore(sample.id, sample.file, sample.time, None, None, str(Decision.UNDECIDED), (), text)
