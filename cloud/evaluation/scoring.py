"""Scores of every method of a bundle: the screener's artefacts on their engines, analyzers and fusion."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from cloud.serving.analysis import FUSED, Analysis
from shared.bundle import Artefact, Bundle
from shared.calibration_modes import CalibrationByMode
from shared.diffusion.training import Progress
from shared.engines import EngineConfiguration, load_engine, run_graph
from shared.errors import DataError, SampleRejected
from shared.preprocessing import modes_of
from shared.samples import Values, Verdict

SCREENER = "screener"
# Batch of samples: one array of rows or windows, or a sequence with one array per sample.
Block: TypeAlias = Sequence[Values] | NDArray[np.float64]


@dataclass(frozen=True)
class MethodScores:
    """Scores of one method on n samples.

    `scores`: (n,), higher for more anomalous samples. `p_values`: (n,), or None for a method without calibration.
    `maps`: one anomaly map (rows, columns) per sample in the units of the method, or None.
    """

    scores: NDArray[np.float64]
    p_values: NDArray[np.float64] | None = None
    maps: Sequence[NDArray[np.float64]] | None = None


@dataclass(frozen=True)
class Scored:
    """Scores of all methods on the n usable samples, in input order.

    `kept`: (n,) positions of the usable samples. `rejections`: position and reason of each rejected sample. `methods`:
    scores by name. `edge`: name of the method that devices run. `contributions`: (n, channels) share of each feature or
    channel in `channels`, or None.
    """

    kept: NDArray[np.intp]
    rejections: tuple[tuple[int, str], ...]
    methods: Mapping[str, MethodScores]
    edge: str
    channels: tuple[str, ...] = ()
    contributions: NDArray[np.float64] | None = None


@dataclass
class _ScoreCollector:
    """Collector of the scores of one method, with one entry per block of samples."""

    scores: list[NDArray[np.float64]] = field(default_factory=list)
    p_values: list[NDArray[np.float64]] = field(default_factory=list)
    maps: list[NDArray[np.float64]] = field(default_factory=list)

    def concatenated(self) -> MethodScores:
        count = sum(map(len, self.scores))
        maps = self.maps if len(self.maps) == count and count else None
        return MethodScores(np.concatenate(self.scores), np.concatenate(self.p_values), maps)


class BundleScorer:
    """Scorer of samples by all methods of a bundle; each artefact and analyzer is loaded once."""

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        self.analysis = Analysis.load(bundle, device)
        self.preprocessor = self.analysis.preprocessor
        manifest = bundle.manifest
        self.channels = manifest.input.channels
        self.edge = method_name(manifest.artefact(manifest.preferred_artefact))
        self._screeners = {
            method_name(artefact): (
                load_engine(bundle, artefact.name, EngineConfiguration()),
                CalibrationByMode.from_arrays(bundle.arrays(artefact.calibration)),
            )
            for artefact in manifest.artefacts
        }

    def score(self, blocks: Iterable[Block], progress: Progress | None = None, total: int = 0) -> Scored:
        """Score samples with all methods, one block at a time to bound memory.

        `total`: expected number of samples, for `progress`. Raises DataError if no sample can be used.
        """
        collectors: dict[str, _ScoreCollector] = {}
        kept: list[int] = []
        rejections: list[tuple[int, str]] = []
        shares: list[tuple[tuple[str, float], ...]] = []
        done = 0
        for values in blocks:
            block = cast(Sequence[Values], values)
            verdicts = self.analysis.judge(block)
            usable = [index for index, answer in enumerate(verdicts) if isinstance(answer, Verdict)]
            accepted = [answer for answer in verdicts if isinstance(answer, Verdict)]
            bad = [(index, answer) for index, answer in enumerate(verdicts) if isinstance(answer, SampleRejected)]
            rejections += [(done + index, str(reason)) for index, reason in bad]
            kept += [done + index for index in usable]
            shares += [answer.contributions for answer in accepted]
            if accepted:
                self._screen(block if not bad else [block[index] for index in usable], collectors)
                _collect(accepted, collectors)
            done += len(block)
            if progress is not None and total:
                progress(done / total)
        if not kept:
            first = f": {rejections[0][1]}" if rejections else ""
            raise DataError(f"None of the {done} samples can be used{first}")
        methods = {name: collector.concatenated() for name, collector in collectors.items()}
        contributions = _as_table(shares, self.channels)
        return Scored(np.array(kept, np.intp), tuple(rejections), methods, self.edge, self.channels, contributions)

    def inputs(self, values: Block) -> NDArray[Any]:
        """Return the graph inputs (kept, ...) of the usable samples."""
        return self.preprocessor.prepare(cast(Sequence[Values], values)).inputs

    def _screen(self, values: Block, collectors: dict[str, _ScoreCollector]) -> None:
        inputs = self.preprocessor.prepare_for_engine(cast(Sequence[Values], values)).inputs
        modes = modes_of(inputs, self.preprocessor.spec)
        for name, (engine, calibration) in self._screeners.items():
            outputs = run_graph(engine, inputs)
            scores = outputs.scores.astype(np.float64)
            collector = collectors.setdefault(name, _ScoreCollector())
            collector.scores.append(scores)
            collector.p_values.append(calibration.p_values(scores, modes).values)
            if outputs.maps is not None:
                collector.maps += list(outputs.maps.astype(np.float64))


def method_name(artefact: Artefact) -> str:
    """Return the name of an artefact in results, such as `screener_fp32` or `screener_int8_openvino`."""
    engine = f"_{artefact.engine}" if artefact.precision != "fp32" else ""
    return f"{SCREENER}_{artefact.precision}{engine}"


def _collect(verdicts: Sequence[Verdict], collectors: dict[str, _ScoreCollector]) -> None:
    """Add the opinion of each analyzer and the fused verdict to the collectors."""
    for position, opinion in enumerate(verdicts[0].opinions):
        collector = collectors.setdefault(opinion.analyzer, _ScoreCollector())
        collector.scores.append(np.array([answer.opinions[position].score for answer in verdicts]))
        collector.p_values.append(np.array([answer.opinions[position].p_value for answer in verdicts]))
    fused = collectors.setdefault(FUSED, _ScoreCollector())
    fused.scores.append(np.array([answer.score for answer in verdicts]))
    fused.p_values.append(np.array([answer.p_value for answer in verdicts]))
    fused.maps += [answer.anomaly_map.astype(np.float64) for answer in verdicts if answer.anomaly_map is not None]


def _as_table(shares: Sequence[tuple[tuple[str, float], ...]], channels: Sequence[str]) -> NDArray[np.float64] | None:
    """Return the shares (n, channels), zeros for a sample without any; None if no sample has one."""
    if not any(shares) or not channels:
        return None
    return np.array([[dict(sample).get(name, 0.0) for name in channels] for sample in shares])
