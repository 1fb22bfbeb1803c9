"""Quantisation of an exported screener to INT8: with NNCF for OpenVINO, to a QDQ graph for ONNX Runtime.

Both quantise after training. Minimum and maximum over normal graph inputs set the ranges of the activations. Weights
use half of the INT8 range: a CPU without byte dot products (AVX2 only) adds pairs of products in 16 bits, which
saturate. Measured on such a CPU, on solar cells with the first three layers in float, the rank correlation of the
scores with FP32 is 0.32 on OpenVINO and 0.38 on ONNX Runtime with the whole range, 0.95 and 0.91 with half of it.
Sums that do not saturate are exact, so a score does not depend on the instructions of the device.
"""

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cloud.training.export import INPUT_NAME
from cloud.training.layers import Layers
from shared.errors import EngineError
from shared.garbage import collection_paused

# Activation functions are included: they cut the range of the product before them, and are rounded together with it.
QUANTISED_OPERATIONS = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Resize", "Relu", "Clip")


class OpenVinoQuantiser:
    """Quantiser of one ONNX model to OpenVINO IRs, with ranges set by graph inputs (n, ...)."""

    def __init__(self, model: bytes, inputs: NDArray[Any], batch_size: int) -> None:
        self._model, self._batches = model, _batches(inputs, batch_size)

    def quantise(self, in_float: Collection[str]) -> dict[str, bytes]:
        """Return the bytes of the ".xml" and of the ".bin".

        `in_float`: names of layers to leave in float, besides those that always are (see `Layers`).
        """
        os.environ.setdefault("NNCF_CI", "1")  # read at import: no telemetry
        with _silence():
            with collection_paused():
                import nncf
                import openvino

            with tempfile.TemporaryDirectory(prefix="vedette-nncf-") as folder:
                source, target = Path(folder) / "screener.onnx", Path(folder) / "int8.xml"
                source.write_bytes(self._model)
                graph = openvino.Core().read_model(source)
                kept = Layers.of(self._model).nodes_in_float(in_float)
                known = {operation.get_friendly_name() for operation in graph.get_ops()}
                ignored = known & {f"{name}{suffix}" for name in kept for suffix in ("", "/WithoutBiases")}
                try:
                    quantised = nncf.quantize(
                        graph,
                        nncf.Dataset(self._batches),
                        subset_size=len(self._batches),
                        preset=nncf.QuantizationPreset.MIXED,
                        ignored_scope=nncf.IgnoredScope(names=sorted(ignored)),
                        advanced_parameters=_nncf_parameters(),
                    )
                except Exception as error:  # NNCF and OpenVINO share no base but Exception
                    raise EngineError(f"The screener cannot be quantised for OpenVINO: {_line(error)}") from None
                openvino.save_model(quantised, target, compress_to_fp16=False)
                return {suffix: target.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")}


class OnnxRuntimeQuantiser:
    """Quantiser of one ONNX model to QDQ graphs, with ranges set once by graph inputs (n, ...)."""

    def __init__(self, model: bytes, inputs: NDArray[Any], batch_size: int) -> None:
        self._model, self._batches = model, _batches(inputs, batch_size)
        self._prepared, self._ranges = b"", b""

    def quantise(self, in_float: Collection[str]) -> bytes:
        """Return the model's bytes; `in_float` as in `OpenVinoQuantiser.quantise`."""
        with _silence():
            from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

            with tempfile.TemporaryDirectory(prefix="vedette-qdq-") as folder:
                ready, ranges, target = (Path(folder) / name for name in ("ready.onnx", "ranges.json", "int8.onnx"))
                try:
                    ready.write_bytes(self._ready(Path(folder)))
                    if self._ranges:
                        ranges.write_bytes(self._ranges)
                    quantize_static(
                        ready,
                        target,
                        _reader(self._batches),
                        calibration_cache_path=ranges,
                        quant_format=QuantFormat.QDQ,
                        op_types_to_quantize=list(QUANTISED_OPERATIONS),
                        per_channel=True,
                        reduce_range=True,
                        activation_type=QuantType.QUInt8,
                        weight_type=QuantType.QInt8,
                        calibrate_method=CalibrationMethod.MinMax,
                        nodes_to_exclude=sorted(Layers.of(self._prepared).nodes_in_float(in_float)),
                    )
                except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
                    raise EngineError(f"The screener cannot be quantised for ONNX Runtime: {_line(error)}") from None
                self._ranges = ranges.read_bytes()
                return target.read_bytes()

    def _ready(self, folder: Path) -> bytes:
        """Return the model with inferred shapes, which ONNX Runtime's quantiser requires."""
        if not self._prepared:
            from onnxruntime.quantization.shape_inference import quant_pre_process

            source, ready = folder / "source.onnx", folder / "preprocessed.onnx"
            source.write_bytes(self._model)
            quant_pre_process(source, ready, skip_symbolic_shape=True)
            self._prepared = ready.read_bytes()
        return self._prepared


def _nncf_parameters() -> Any:
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    return nncf.AdvancedQuantizationParameters(
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        overflow_fix=nncf.OverflowFix.ENABLE,  # half of the range in all layers, not only the first
    )


def _reader(batches: Sequence[NDArray[Any]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Iterator over batches of inputs."""

        def __init__(self) -> None:
            self._remaining = iter(batches)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self._remaining, None)
            return None if batch is None else {INPUT_NAME: batch}

    return Reader()


def _batches(inputs: NDArray[Any], size: int) -> list[NDArray[Any]]:
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress the quantisers' prints and log lines."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
