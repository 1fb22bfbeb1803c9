"""Small real bundles: an MLP (or a pooling graph for images) in ONNX and OpenVINO IR, calibrated and signed."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper, numpy_helper

from shared.bundle import Artefact, Bundle, InputSpec, Manifest, ParityFigures, npz_bytes, sign
from shared.calibration_modes import CalibrationByMode
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from shared.preprocessing import Preprocessor, modes_of

CHANNELS = ("heat", "load", "flow")
LENGTH, STRIDE = 8, 4
SIDE = 32


def normal_rows(count: int, seed: int = 0) -> np.ndarray:
    """(count, 3) float64 readings of a plant that is well."""
    return np.random.default_rng(seed).normal([20.0, 5.0, 100.0], [1.0, 0.5, 10.0], (count, 3))


def normal_windows(count: int, seed: int = 0) -> np.ndarray:
    return normal_rows(count * LENGTH, seed).reshape(count, LENGTH, 3)


def normal_images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(118, 139, (count, SIDE, SIDE, 3)).astype(np.uint8)


def tabular_bundle(key: Ed25519PrivateKey, version: int = 1, **changes: Any) -> Bundle:
    spec = InputSpec(channels=CHANNELS)
    preprocessor = fit_preprocessor(Modality.TABULAR, normal_rows(400), spec)
    return _bundle(key, Modality.TABULAR, spec, preprocessor, normal_rows(500, seed=1), version, **changes)


def rows_with_gaps(count: int, seed: int = 0) -> np.ndarray:
    """Rows of `normal_rows` with their operating mode behind: in mode 1 all readings vary three times as much, in mode
    2 as little as in mode 0, and rarely is it that. Some readings are missing."""
    rng = np.random.default_rng(seed)
    modes = rng.choice(3, count, p=[0.5, 0.47, 0.03])
    wide = np.where(modes == 1, 3.0, 1.0)[:, np.newaxis]
    rows = 100.0 + wide * rng.normal(size=(count, 3))
    rows[rng.random(rows.shape) < 0.1] = np.nan
    rows[:, 0] = np.where(np.isnan(rows).all(axis=1), 100.0, rows[:, 0])
    return np.column_stack([rows, modes])


def mode_bundle(key: Ed25519PrivateKey) -> Bundle:
    """Rows with gaps; each mode is calibrated on its own, but for the rarest, which has too few held-out rows."""
    spec = InputSpec(channels=(*CHANNELS, "mode"), missing=True, mode_channel="mode", modes=(0.0, 1.0, 2.0))
    preprocessor = fit_preprocessor(Modality.TABULAR, rows_with_gaps(600), spec)
    return _bundle(key, Modality.TABULAR, spec, preprocessor, rows_with_gaps(380, seed=1), 1)


def series_bundle(key: Ed25519PrivateKey, version: int = 1, **changes: Any) -> Bundle:
    spec = InputSpec(channels=CHANNELS, window_length=LENGTH, window_stride=STRIDE)
    preprocessor = fit_preprocessor(Modality.SERIES, normal_windows(400), spec)
    return _bundle(key, Modality.SERIES, spec, preprocessor, normal_windows(500, seed=1), version, **changes)


def image_bundle(key: Ed25519PrivateKey, version: int = 1, **changes: Any) -> Bundle:
    spec = InputSpec(image_height=SIDE, image_width=SIDE)
    preprocessor = fit_preprocessor(Modality.IMAGE, [], spec)
    return _bundle(key, Modality.IMAGE, spec, preprocessor, normal_images(100, seed=1), version, **changes)


def distance_graph(dim: int, *, hidden: int = 0, gain: float = 1.0) -> onnx.ModelProto:
    """sum |x| as an MLP: relu(x [I, -I]) 1; `hidden` widens it by units that add nothing, `gain` scales the score."""
    first = np.concatenate([np.eye(dim), -np.eye(dim), np.zeros((dim, hidden))], axis=1).astype(np.float32)
    second = np.full((first.shape[1], 1), gain, dtype=np.float32)
    tensors = [numpy_helper.from_array(first, "w1"), numpy_helper.from_array(second, "w2")]
    tensors.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"))
    nodes = [
        helper.make_node("Gemm", ["input", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("Gemm", ["a", "w2"], ["s"]),
        helper.make_node("Squeeze", ["s", "axis"], ["score"]),
    ]
    return _model(nodes, tensors, TensorProto.FLOAT, ["batch", dim])


def brightness_graph() -> onnx.ModelProto:
    """A map of the distance from mid-grey in cells of 8 x 8 pixels; the score is its maximum."""
    tensors = [
        numpy_helper.from_array(np.array(128.0, dtype=np.float32), "grey"),
        numpy_helper.from_array(np.array([3], dtype=np.int64), "bands"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "one"),
        numpy_helper.from_array(np.array([1, 2], dtype=np.int64), "cells"),
    ]
    nodes = [
        helper.make_node("Cast", ["input"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "grey"], ["centred"]),
        helper.make_node("ReduceMean", ["centred", "bands"], ["mean"], keepdims=0),
        helper.make_node("Abs", ["mean"], ["distance"]),
        helper.make_node("Unsqueeze", ["distance", "one"], ["planes"]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Squeeze", ["pooled", "one"], ["anomaly_map"]),
        helper.make_node("ReduceMax", ["anomaly_map", "cells"], ["score"], keepdims=0),
    ]
    return _model(nodes, tensors, TensorProto.UINT8, ["batch", SIDE, SIDE, 3], with_map=True)


def _model(
    nodes: list[Any], tensors: list[Any], element: int, shape: list[Any], *, with_map: bool = False
) -> onnx.ModelProto:
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"])]
    if with_map:
        outputs.append(helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, ["batch", "h", "w"]))
    inputs = [helper.make_tensor_value_info("input", element, shape)]
    graph = helper.make_graph(nodes, "screener", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def openvino_files(graph: bytes) -> tuple[bytes, bytes]:
    """The IR of an ONNX graph: .xml and .bin."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "graph.xml"
        openvino.save_model(openvino.Core().read_model(graph, b""), target, compress_to_fp16=False)
        return target.read_bytes(), target.with_suffix(".bin").read_bytes()


def run_graph(graph: bytes, inputs: np.ndarray) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input": inputs}), strict=True))


def _bundle(
    key: Ed25519PrivateKey,
    modality: Modality,
    spec: InputSpec,
    preprocessor: Preprocessor,
    held_out: np.ndarray,
    version: int,
    *,
    graph: onnx.ModelProto | None = None,
    name: str = "plant",
    preferred: str = "int8_openvino",
) -> Bundle:
    inputs = preprocessor.prepare_for_engine(held_out).inputs
    if graph is None:
        graph = brightness_graph() if modality is Modality.IMAGE else distance_graph(inputs.shape[1])
    data = graph.SerializeToString()
    xml, weights = openvino_files(data)
    outputs = run_graph(data, inputs)
    scores = np.nan_to_num(outputs["score"]) + np.linspace(0, 1e-4, len(inputs))
    calibration = CalibrationByMode.fit(scores, modes_of(inputs, spec))
    arrays = dict(calibration.to_arrays())
    if "anomaly_map" in outputs:
        arrays["map_range"] = np.quantile(outputs["anomaly_map"], [0.5, 0.999])
    files = {
        **preprocessor.files(),
        "edge/screener_int8_openvino.xml": xml,
        "edge/screener_int8_openvino.bin": weights,
        "edge/screener_int8_onnxruntime.onnx": data,
        "edge/calibration_int8_openvino.npz": npz_bytes(arrays),
        "edge/calibration_int8_onnxruntime.npz": npz_bytes(arrays),
        "cloud/notes.json": b"{}",
    }
    artefacts = tuple(
        Artefact(
            name=f"int8_{engine}",
            engine=engine,
            precision="int8",
            graph=f"edge/screener_int8_{engine}.{suffix}",
            calibration=f"edge/calibration_int8_{engine}.npz",
            calibration_id=calibration.calibration_id,
        )
        for engine, suffix in (("openvino", "xml"), ("onnxruntime", "onnx"))
    )
    parity = ParityFigures(rank_correlation=1.0, label_agreement=1.0, max_score_difference=0.0)
    manifest = Manifest(
        name=name,
        version=version,
        created_at="2026-01-01T00:00:00+00:00",
        modality=modality,
        input=spec,
        artefacts=artefacts,
        preferred_artefact=preferred,
        parity={artefact.name: parity for artefact in artefacts},
        tolerances={},
        training={},
        files={},
    )
    return sign(manifest, files, key)
