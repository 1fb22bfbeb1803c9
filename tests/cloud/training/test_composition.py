"""Tests that the window views inside an artefact equal those of the preprocessing, on every engine."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cloud.training.composition import InputStage
from cloud.training.export import export_onnx
from cloud.training.quantise import OnnxRuntimeQuantiser, OpenVinoQuantiser
from cloud.training.screeners import SeriesViews, VectorScreener
from shared.bundle import InputSpec
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.engines import EngineConfiguration, open_graph, run_graph
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from shared.preprocessing import Preprocessor

WINDOWS, LENGTH = 400, 6


def windows_of(channels: int, *, missing: bool, modes: bool, seed: int = 0) -> np.ndarray:
    """Return correlated readings far from zero with some outliers; the last channel is the mode, if any."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((WINDOWS, LENGTH, channels))
    mixed = latent @ np.random.default_rng(1).standard_normal((channels, channels))
    values = 1000.0 + 3.0 * mixed * np.where(rng.random((WINDOWS, 1, 1)) < 0.1, 30.0, 1.0)
    if missing:
        values[rng.random(values.shape) < 0.1] = np.nan
    if modes:
        column = np.broadcast_to(rng.integers(0, 2, (WINDOWS, 1, 1)), (WINDOWS, LENGTH, 1))
        values = np.concatenate([values, column], axis=2)
    return values


def fitted(channels: int, *, missing: bool = False, modes: bool = False) -> Preprocessor:
    names = tuple(f"c{number}" for number in range(channels))
    mode = {"mode_channel": "mode", "modes": (0.0, 1.0)} if modes else {}
    spec = InputSpec(
        channels=(*names, "mode") if modes else names, window_length=LENGTH, window_stride=1, missing=missing, **mode
    )
    return fit_preprocessor(Modality.SERIES, windows_of(channels, missing=missing, modes=modes), spec)


@pytest.mark.parametrize(
    ("channels", "missing", "modes"),
    [
        (1, False, False),
        (5, True, True),
        (5, False, True),
        (131, True, False),
        pytest.param(131, False, False, marks=pytest.mark.long),
    ],
    # 131 channels: 130 are masked in pairs and one alone
)
def test_every_engine_computes_the_views_of_the_preprocessing(channels: int, missing: bool, modes: bool) -> None:
    preprocessor = fitted(channels, missing=missing, modes=modes)
    fresh = windows_of(channels, missing=missing, modes=modes, seed=7)
    fresh[3, 2, 0] = np.inf
    fresh[10:20, :, 0] = fresh[10:20, :1, 0]  # stuck
    prepared = preprocessor.prepare(fresh)
    for_engine = preprocessor.prepare_for_engine(fresh)
    assert for_engine.kept.tolist() == prepared.kept.tolist()
    assert for_engine.rejections == prepared.rejections
    assert [position for position, _ in for_engine.rejections] == [3]
    assert preprocessor.graph_inputs(for_engine.inputs) == pytest.approx(prepared.inputs, abs=0.01)
    views = SeriesViews.of(preprocessor)
    assert views is not None
    model = export_onnx(views)
    for run in (_torch(views), _onnxruntime(model), _openvino(model)):
        assert run(for_engine.inputs) == pytest.approx(prepared.inputs, abs=0.02)


@pytest.mark.parametrize("missing", [False, True])
def test_a_composed_artefact_scores_windows_as_its_graph_scores_views(missing: bool) -> None:
    preprocessor = fitted(5, missing=missing)
    windows = windows_of(5, missing=missing, modes=False, seed=3)
    graph_inputs = preprocessor.prepare(windows).inputs
    engine_inputs = preprocessor.prepare_for_engine(windows).inputs
    torch.manual_seed(0)
    screener = VectorScreener.within(TimeEstimationHead(graph_inputs.shape[1], (32, 32, 32)), graph_inputs)
    views = SeriesViews.of(preprocessor)
    assert views is not None
    input_stage, model = InputStage(views), export_onnx(screener)
    quantised = OnnxRuntimeQuantiser(model, graph_inputs, 64).quantise(())
    ir = OpenVinoQuantiser(model, graph_inputs, 64).quantise(())
    pairs = {
        "fp32": ({".onnx": model}, {".onnx": input_stage.before_onnx(model)}),
        "onnxruntime": ({".onnx": quantised}, {".onnx": input_stage.before_onnx(quantised)}),
        "openvino": (ir, input_stage.before_openvino(ir)),
    }
    for name, (graph, whole) in pairs.items():
        expected, found = _scores(graph, graph_inputs), _scores(whole, engine_inputs)
        steps = 1e-4 if name == "fp32" else 0.02  # rounding may move a value to the next of 256 steps
        assert found == pytest.approx(expected, abs=steps * float(np.ptp(expected))), name


def test_rows_and_images_have_no_views() -> None:
    rows = fit_preprocessor(Modality.TABULAR, np.random.default_rng(0).random((50, 2)), InputSpec(channels=("a", "b")))
    assert SeriesViews.of(rows) is None
    inputs = rows.prepare(np.ones((3, 2))).inputs
    assert rows.prepare_for_engine(np.ones((3, 2))).inputs.tolist() == inputs.tolist()
    assert rows.graph_inputs(inputs) is inputs


def _scores(files: dict[str, bytes], inputs: np.ndarray) -> np.ndarray:
    configuration = EngineConfiguration()
    if ".xml" in files:
        return run_graph(open_graph("openvino", files[".xml"], files[".bin"], configuration), inputs).scores
    return run_graph(open_graph("onnxruntime", files[".onnx"], None, configuration), inputs).scores


# The graph of the views has no output `score`, so the engines of `shared.engines` refuse it.
def _torch(views: SeriesViews) -> Callable[[np.ndarray], np.ndarray]:
    return lambda inputs: views(torch.from_numpy(inputs)).numpy()


def _onnxruntime(model: bytes) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["graph_inputs"], {"input": inputs})[0]


def _openvino(model: bytes) -> Callable[[np.ndarray], np.ndarray]:
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model, b""), "CPU", options)
    return lambda inputs: np.array(compiled([inputs])[0])
