"""Artefacts of a bundle: a trained screener exported, quantised, gated, and calibrated on the engines of devices."""

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloud.metrics import auroc
from cloud.training.accuracy_control import fewest_in_float, rank_layers
from cloud.training.artefact_progress import ArtefactProgress
from cloud.training.composition import InputStage
from cloud.training.export import export_onnx
from cloud.training.layers import Layers
from cloud.training.modalities.base import GraphProfile
from cloud.training.parity import check, compare
from cloud.training.progress import StageProgress
from cloud.training.quantise import OnnxRuntimeQuantiser, OpenVinoQuantiser
from cloud.training.reference import run_reference
from cloud.training.screeners import ScreenerModule, SeriesScreener, SeriesViews
from shared.bundle import (
    CALIBRATION_FILES,
    FP32_ONNXRUNTIME,
    GRAPH_FILES,
    INT8_OPENVINO,
    Artefact,
    ParityFigures,
    npz_bytes,
)
from shared.calibration_modes import CalibrationByMode
from shared.engines import EngineConfiguration, GraphOutput, open_graph, run_graph

Run: TypeAlias = Callable[[NDArray[Any]], GraphOutput]


@dataclass(frozen=True, slots=True)
class GateSamples:
    """Samples that quantise, compare and calibrate the artefacts.

    Attributes:
        quantisation: Graph inputs (n, ...) of normal samples that set the INT8 ranges.
        held_out: Engine inputs (n, ...) of normal samples that artefacts are compared and calibrated on.
        test: Engine inputs (m, ...) of labelled samples; None without.
        test_labels: Labels (m,) of `test`, true for anomalies.
        modes: Operating modes (n,) of `held_out`, see `InputColumns`.
        graph_inputs: Graph inputs of `held_out`; None if they are the engine inputs.
    """

    quantisation: NDArray[Any]
    held_out: NDArray[Any]
    test: NDArray[Any] | None = None
    test_labels: NDArray[np.bool_] | None = None
    modes: NDArray[np.int64] | None = None
    graph_inputs: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class BuiltArtefacts:
    """Artefacts that passed the gate.

    Attributes:
        files: Content of graphs and calibrations by path in the bundle.
        artefacts: Entries of the manifest.
        preferred: Name of the artefact that devices use unless they measure otherwise.
        parity: Figures of the gate by artefact.
        auroc: AUROC by artefact; empty without labels.
        float_layers: Names of the layers in float by INT8 artefact.
        layers: Number of layers.
    """

    files: dict[str, bytes]
    artefacts: tuple[Artefact, ...]
    preferred: str
    parity: dict[str, ParityFigures]
    auroc: dict[str, float]
    float_layers: dict[str, tuple[str, ...]]
    layers: int

    def precision_facts(self) -> dict[str, Any]:
        """Return the number of layers, and by INT8 artefact the names of those in float, for the manifest."""
        return {
            "layers": self.layers,
            "float_layers": {name: list(names) for name, names in self.float_layers.items()},
        }


def build_artefacts(
    screener: ScreenerModule,
    samples: GateSamples,
    profile: GraphProfile,
    tolerances: Mapping[str, float],
    progress: StageProgress,
    views: SeriesViews | None = None,
) -> BuiltArtefacts:
    """Export and quantise the screener, then gate and calibrate each artefact.

    `views`: input stage that is put before each graph of a series. Raises ParityError if an artefact disagrees with the
    FP32 model.
    """
    progress("exporting", 0.0)
    model = export_onnx(screener)
    stage = InputStage(views) if views is not None else None
    reference = screener if views is None else SeriesScreener(views, screener)
    done = ArtefactProgress(progress, len(GRAPH_FILES) - 1)
    gate = _Gate(functools.partial(run_reference, reference), samples, tolerances)
    builder = _Int8Builder(model, samples, profile, stage, done)
    files: dict[str, bytes] = {}
    passed, artefacts, float_layers = {}, [], {}
    for name in GRAPH_FILES:
        if name == FP32_ONNXRUNTIME:
            graph = _onnxruntime_graph(
                GRAPH_FILES[FP32_ONNXRUNTIME], model if stage is None else stage.before_onnx(model)
            )
            passed[name] = gate.check(name, graph.run)
            done.compared()
        else:
            (graph, passed[name]), float_layers[name] = builder.build(name, gate)
            done.built()
        artefact, calibration = _calibrate(name, passed[name], samples.modes)
        artefacts.append(artefact)
        files |= {**graph.files, artefact.calibration: calibration}
    aurocs = {name: result.auroc for name, result in passed.items() if result.auroc is not None}
    parity = {name: result.parity for name, result in passed.items()}
    return BuiltArtefacts(
        files,
        tuple(artefacts),
        f"int8_{profile.preferred_engine}",
        parity,
        aurocs,
        float_layers,
        len(builder.layers.all),
    )


@dataclass(frozen=True, slots=True)
class _Graph:
    """Files of one artefact by path in the bundle, and the function that runs it."""

    files: dict[str, bytes]
    run: Run


@dataclass(frozen=True, slots=True)
class _GateResult:
    """Held-out scores (n,) and maps, figures and AUROC, if any, of an artefact that passed the gate."""

    scores: NDArray[np.float64]
    maps: NDArray[np.float32] | None
    parity: ParityFigures
    auroc: float | None


class _Gate:
    """Parity gate: it compares artefacts with the FP32 model."""

    def __init__(self, reference: Run, samples: GateSamples, tolerances: Mapping[str, float]) -> None:
        self._samples, self._tolerances = samples, tolerances
        self._expected = _scores(reference, samples.held_out)
        self._expected_test = _scores(reference, samples.test)

    def check(self, name: str, run: Run) -> _GateResult:
        """Return the figures of one artefact. Raises ParityError if they lie outside the tolerances."""
        outputs = run(self._samples.held_out)
        scores, labels = outputs.scores.astype(np.float64), self._samples.test_labels
        rate = self._tolerances["operating_rate"]
        # Fail early: the labelled part is often the larger one.
        check(name, compare(self._expected, scores, operating_rate=rate), self._tolerances, self._expected)
        test = _scores(run, self._samples.test)
        figures = compare(
            self._expected,
            scores,
            operating_rate=rate,
            labels=labels,
            reference_test=self._expected_test if len(self._expected_test) else None,
            test=test if len(test) else None,
        )
        check(name, figures, self._tolerances, self._expected)
        return _GateResult(scores, outputs.maps, figures, None if labels is None else auroc(labels, test))


class _Int8Builder:
    """Builder of INT8 artefacts of one ONNX model, with as few layers in float as the gate allows."""

    def __init__(
        self,
        model: bytes,
        samples: GateSamples,
        profile: GraphProfile,
        stage: InputStage | None,
        done: ArtefactProgress,
    ) -> None:
        self.layers = Layers.of(model)
        self._model, self._stage, self._done = model, stage, done
        ranked_on = samples.held_out if samples.graph_inputs is None else samples.graph_inputs
        self._ranked_on = ranked_on[: profile.ranking_size(ranked_on.shape[1:])]
        batch_size = profile.quantisation_batch_size
        self._onnxruntime = OnnxRuntimeQuantiser(model, samples.quantisation, batch_size)
        self._openvino = OpenVinoQuantiser(model, samples.quantisation, batch_size)
        names = [layer.name for layer in self.layers.all if layer.may_be_int8]
        self._first, self._others = names[: profile.first_in_float], names[profile.first_in_float :]

    def build(self, name: str, gate: _Gate) -> tuple[tuple[_Graph, _GateResult], tuple[str, ...]]:
        """Return the artefact `name`, its result at the gate, and the names of its layers in float, in order.

        Raises ParityError if no choice of layers passes.
        """

        def attempt(in_float: Collection[str]) -> tuple[_Graph, _GateResult]:
            graph = self._make(name, (*self._first, *in_float))
            try:
                return graph, gate.check(name, graph.run)
            finally:
                self._done.attempted()

        found, in_float = fewest_in_float(attempt, lambda: self._ranking)
        return found, tuple(layer.name for layer in self.layers.in_float((*self._first, *in_float)))

    @functools.cached_property
    def _ranking(self) -> tuple[str, ...]:
        return rank_layers(
            self._model, self._others, self._first, self._onnxruntime, self._ranked_on, self._done.ranked
        )

    def _make(self, name: str, in_float: Collection[str]) -> _Graph:
        if name == INT8_OPENVINO:
            ir = self._openvino.quantise(in_float)
            return _openvino_graph(ir if self._stage is None else self._stage.before_openvino(ir))
        model = self._onnxruntime.quantise(in_float)
        return _onnxruntime_graph(GRAPH_FILES[name], model if self._stage is None else self._stage.before_onnx(model))


def _openvino_graph(ir: Mapping[str, bytes]) -> _Graph:
    stem = GRAPH_FILES[INT8_OPENVINO].removesuffix(".xml")
    engine = open_graph("openvino", ir[".xml"], ir[".bin"], EngineConfiguration())
    return _Graph({f"{stem}{suffix}": data for suffix, data in ir.items()}, functools.partial(run_graph, engine))


def _onnxruntime_graph(path: str, model: bytes) -> _Graph:
    engine = open_graph("onnxruntime", model, None, EngineConfiguration())
    return _Graph({path: model}, functools.partial(run_graph, engine))


def _scores(run: Run, inputs: NDArray[Any] | None) -> NDArray[np.float64]:
    if inputs is None:
        return np.zeros(0)
    return run(inputs).scores.astype(np.float64)


def _calibrate(name: str, passed: _GateResult, modes: NDArray[np.int64] | None) -> tuple[Artefact, bytes]:
    """Return the artefact's entry in the manifest and its calibration file, with the range of normal patch scores."""
    calibration = CalibrationByMode.fit(passed.scores, modes)
    arrays: dict[str, NDArray[Any]] = calibration.to_arrays()
    if passed.maps is not None:
        arrays["map_range"] = np.quantile(passed.maps, [0.5, 0.999]).astype(np.float64)
    precision, _, engine = name.partition("_")
    artefact = Artefact(
        name=name,
        engine=engine,
        precision=precision,
        graph=GRAPH_FILES[name],
        calibration=CALIBRATION_FILES[name],
        calibration_id=calibration.calibration_id,
    )
    return artefact, npz_bytes(arrays)
