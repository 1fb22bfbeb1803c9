"""The graphs on the engines that devices run, for calibration and the parity gate."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.training.screeners import Screener, SeriesScreener
from shared.errors import EngineError

Runner: TypeAlias = Callable[[NDArray[Any]], dict[str, NDArray[np.float32]]]
_BATCH_VECTORS, _BATCH_IMAGES = 512, 8


def torch_runner(screener: Screener | SeriesScreener) -> Runner:
    """The FP32 module itself: what every artefact is compared with."""

    def run(inputs: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        with torch.inference_mode():
            outputs = screener(torch.from_numpy(np.ascontiguousarray(inputs)))
        found = outputs if isinstance(outputs, tuple) else (outputs,)
        return {name: tensor.numpy() for name, tensor in zip(screener.output_names, found, strict=True)}

    return _in_batches(run)


def onnxruntime_runner(model: bytes) -> Runner:
    """An ONNX model on ONNX Runtime's CPU provider. Raises EngineError if it cannot be loaded."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise EngineError(f"ONNX Runtime cannot load the screener: {_line(error)}") from None
    names = [output.name for output in session.get_outputs()]

    def run(inputs: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(names, session.run(names, {session.get_inputs()[0].name: inputs}), strict=True))

    return _in_batches(run)


def openvino_runner(files: Mapping[str, bytes]) -> Runner:
    """An IR on OpenVINO's CPU plugin in float32; `files` are the bytes of the ".xml" and of the ".bin".

    Raises EngineError if it cannot be loaded.
    """
    import openvino

    # Without the hint OpenVINO computes in bfloat16 where the CPU can, which shifts scores from machine to machine.
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "1"}
    try:
        with TemporaryDirectory(prefix="vedette-ir-") as folder:
            for suffix, data in files.items():
                (Path(folder) / f"screener{suffix}").write_bytes(data)
            core = openvino.Core()
            compiled = core.compile_model(core.read_model(Path(folder) / "screener.xml"), "CPU", options)
    except Exception as error:  # OpenVINO raises RuntimeError and its own exceptions
        raise EngineError(f"OpenVINO cannot load the screener: {_line(error)}") from None

    def run(inputs: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        outputs = compiled([np.ascontiguousarray(inputs)])
        return {port.get_any_name(): np.array(value) for port, value in outputs.items()}

    return _in_batches(run)


def _in_batches(run: Runner) -> Runner:
    """`run`, called on parts of bounded size."""

    def run_all(inputs: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        size = _BATCH_IMAGES if inputs.ndim >= 4 else _BATCH_VECTORS
        parts = [run(inputs[start : start + size]) for start in range(0, len(inputs), size)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return run_all


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
