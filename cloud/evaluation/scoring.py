"""What every method of a bundle says of samples: the screener's artefacts on their engines, analyzers and fusion."""

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
# Samples as a batch of them has: one array of rows or windows, or an array for each sample.
Block: TypeAlias = Sequence[Values] | NDArray[np.float64]


@dataclass(frozen=True)
class MethodScores:
    """What one method said of n samples, higher scores being more anomalous.

    `scores`: (n,). `p_values`: (n,), or None for a method without calibration. `maps`: an anomaly map (rows, columns)
    for each sample, in the method's own units, or None.
    """

    scores: NDArray[np.float64]
    p_values: NDArray[np.float64] | None = None
    maps: Sequence[NDArray[np.float64]] | None = None


@dataclass(frozen=True)
class Scored:
    """All methods on the samples that could be used, in order.

    `kept`: (n,) positions of these. `rejections`: position and reason of the others. `methods`: by name. `edge`: the
    method that devices run. `contributions`: the share of each feature or channel, a row (features,) for each sample,
    or None; of `channels`.
    """

    kept: NDArray[np.intp]
    rejections: tuple[tuple[int, str], ...]
    methods: Mapping[str, MethodScores]
    edge: str
    channels: tuple[str, ...] = ()
    contributions: NDArray[np.float64] | None = None


@dataclass
class _Parts:
    """What is gathered of one method, a part for each block of samples."""

    scores: list[NDArray[np.float64]] = field(default_factory=list)
    p_values: list[NDArray[np.float64]] = field(default_factory=list)
    maps: list[NDArray[np.float64]] = field(default_factory=list)

    def joined(self) -> MethodScores:
        count = sum(map(len, self.scores))
        maps = self.maps if len(self.maps) == count and count else None
        return MethodScores(np.concatenate(self.scores), np.concatenate(self.p_values), maps)


class BundleScorer:
    """A bundle opened for scoring, each part loaded once."""

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
        """All methods on samples that come in blocks, so that only one block need be in memory.

        `total`: how many samples there will be, for `progress`. Raises DataError if no sample can be used.
        """
        parts: dict[str, _Parts] = {}
        kept: list[int] = []
        rejections: list[tuple[int, str]] = []
        shares: list[tuple[tuple[str, float], ...]] = []
        done = 0
        for values in blocks:
            block = cast(Sequence[Values], values)
            verdicts = self.analysis.judge(block)
            good = [index for index, answer in enumerate(verdicts) if isinstance(answer, Verdict)]
            found = [answer for answer in verdicts if isinstance(answer, Verdict)]
            bad = [(index, answer) for index, answer in enumerate(verdicts) if isinstance(answer, SampleRejected)]
            rejections += [(done + index, str(reason)) for index, reason in bad]
            kept += [done + index for index in good]
            shares += [answer.contributions for answer in found]
            if found:
                self._screen(block if not bad else [block[index] for index in good], parts)
                _gather(found, parts)
            done += len(block)
            if progress is not None and total:
                progress(done / total)
        if not kept:
            first = f": {rejections[0][1]}" if rejections else ""
            raise DataError(f"None of the {done} samples can be used{first}")
        methods = {name: gathered.joined() for name, gathered in parts.items()}
        contributions = _as_table(shares, self.channels)
        return Scored(np.array(kept, np.intp), tuple(rejections), methods, self.edge, self.channels, contributions)

    def inputs(self, values: Block) -> NDArray[Any]:
        """Graph inputs (kept, ...) of those samples that can be used."""
        return self.preprocessor.prepare(cast(Sequence[Values], values)).inputs

    def _screen(self, values: Block, parts: dict[str, _Parts]) -> None:
        inputs = self.preprocessor.prepare_for_engine(cast(Sequence[Values], values)).inputs
        modes = modes_of(inputs, self.preprocessor.spec)
        for name, (engine, calibration) in self._screeners.items():
            outputs = run_graph(engine, inputs)
            scores = outputs.scores.astype(np.float64)
            gathered = parts.setdefault(name, _Parts())
            gathered.scores.append(scores)
            gathered.p_values.append(calibration.p_values(scores, modes).values)
            if outputs.maps is not None:
                gathered.maps += list(outputs.maps.astype(np.float64))


def method_name(artefact: Artefact) -> str:
    """How results name an artefact: `screener_fp32`, `screener_int8_openvino`, `screener_int8_onnxruntime`."""
    engine = f"_{artefact.engine}" if artefact.precision != "fp32" else ""
    return f"{SCREENER}_{artefact.precision}{engine}"


def _gather(verdicts: Sequence[Verdict], parts: dict[str, _Parts]) -> None:
    """Each analyzer's opinion and the fused one."""
    for position, opinion in enumerate(verdicts[0].opinions):
        gathered = parts.setdefault(opinion.analyzer, _Parts())
        gathered.scores.append(np.array([answer.opinions[position].score for answer in verdicts]))
        gathered.p_values.append(np.array([answer.opinions[position].p_value for answer in verdicts]))
    fused = parts.setdefault(FUSED, _Parts())
    fused.scores.append(np.array([answer.score for answer in verdicts]))
    fused.p_values.append(np.array([answer.p_value for answer in verdicts]))
    fused.maps += [answer.anomaly_map.astype(np.float64) for answer in verdicts if answer.anomaly_map is not None]


def _as_table(shares: Sequence[tuple[tuple[str, float], ...]], channels: Sequence[str]) -> NDArray[np.float64] | None:
    if not shares or not all(shares) or not channels:
        return None
    return np.array([[dict(sample).get(name, 0.0) for name in channels] for sample in shares])
