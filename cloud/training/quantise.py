"""INT8 artefacts of an exported screener: for OpenVINO by NNCF, for ONNX Runtime as a QDQ graph.

Both quantise after training, on graph inputs that set the ranges of the activations by their extremes. The first
layers and the last stay in float: they hold few of the operations and most of what eight bits would cost. (Measured on
solar cells, rank correlation of patch scores with FP32: 0.95 on OpenVINO and 0.73 on ONNX Runtime with all layers in
INT8, 0.99 and 0.97 with the backbone's stem and first block in float.)
"""

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.training.export import INPUT_NAME
from shared.errors import EngineError

QUANTISED_OPERATIONS = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Resize")
CORE_SHARE, RANGE_FACTOR = 0.99, 2.0
_MATRIX_OPERATIONS = {"Conv", "Gemm", "MatMul"}
WHOLE_HEADS_FROM = 9
_WHITENING = "whitening"  # in the names of an encoder's parameters


def choose_inputs(inputs: NDArray[Any], scores: NDArray[Any], count: int, seed: int) -> NDArray[Any]:
    """At most `count` of the normal graph inputs (n, ...) to set the INT8 ranges by.

    Of vectors, the most normal ones, doubled: a range that holds the rarest normals spends its steps on them, while
    what saturates beyond this one scores by how far it lies outside, too (see `VectorScreener`). Measured on telemetry
    with outliers: rank correlation with FP32 0.993 to 0.998 by this choice, 0.90 to 0.96 by all normals or by
    perturbed ones. Images are used as they are.
    """
    generator = np.random.default_rng(seed)
    if inputs.ndim >= 4:
        chosen: NDArray[Any] = inputs[np.sort(generator.permutation(len(inputs))[:count])]
        return chosen
    core = np.argsort(scores, kind="stable")[: max(1, int(len(scores) * CORE_SHARE))]
    widened: NDArray[Any] = inputs[np.sort(generator.permutation(core)[:count])] * inputs.dtype.type(RANGE_FACTOR)
    return widened


def quantise_openvino(model: bytes, inputs: NDArray[Any], float_layers: int) -> dict[str, bytes]:
    """The INT8 IR of an ONNX model: the bytes of its ".xml" and ".bin".

    `inputs`: graph inputs (n, ...). `float_layers`: how many of the first matrix products stay in float.
    """
    os.environ.setdefault("NNCF_CI", "1")  # read at import: no telemetry
    with _silence():
        import nncf
        import openvino

        with tempfile.TemporaryDirectory(prefix="vedette-nncf-") as folder:
            source = Path(folder) / "screener.onnx"
            source.write_bytes(model)
            graph = openvino.Core().read_model(source)
            dataset = nncf.Dataset(_batches(inputs))
            by_extremes = nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
            )
            kept = {
                f"{name}{suffix}" for name in _kept_in_float(model, float_layers) for suffix in ("", "/WithoutBiases")
            }
            known = {operation.get_friendly_name() for operation in graph.get_ops()}
            try:
                quantised = nncf.quantize(
                    graph,
                    dataset,
                    subset_size=len(_batches(inputs)),
                    preset=nncf.QuantizationPreset.MIXED,
                    ignored_scope=nncf.IgnoredScope(names=sorted(kept & known)),
                    advanced_parameters=by_extremes,
                )
            except Exception as error:  # NNCF and OpenVINO share no base but Exception
                raise EngineError(f"The screener cannot be quantised for OpenVINO: {_line(error)}") from None
            target = Path(folder) / "int8.xml"
            openvino.save_model(quantised, target, compress_to_fp16=False)
            return {suffix: target.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")}


def quantise_onnxruntime(model: bytes, inputs: NDArray[Any], float_layers: int) -> bytes:
    """The INT8 QDQ graph of an ONNX model; arguments as of `quantise_openvino`."""
    with _silence():
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        with tempfile.TemporaryDirectory(prefix="vedette-qdq-") as folder:
            source, ready, target = (Path(folder) / f"{name}.onnx" for name in ("source", "ready", "int8"))
            source.write_bytes(model)
            try:
                quant_pre_process(source, ready, skip_symbolic_shape=True)
                quantize_static(
                    ready,
                    target,
                    _reader(inputs),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=list(QUANTISED_OPERATIONS),
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.MinMax,
                    nodes_to_exclude=_kept_in_float(ready.read_bytes(), float_layers),
                )
            except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
                raise EngineError(f"The screener cannot be quantised for ONNX Runtime: {_line(error)}") from None
            return target.read_bytes()


def _kept_in_float(model: bytes, float_layers: int) -> list[str]:
    """Names of the nodes that are not quantised: the first `float_layers` matrix products, and the last of each head.

    With the names of what they put out: OpenVINO knows a node by that where it is an output of the graph.
    Also those that whiten, which make small differences large, and those that read what was whitened, whose rare values
    are far out, or from WHOLE_HEADS_FROM layers on all that follow; and what comes after the last product of a head:
    the range of a score is not that of normal samples.
    """
    import onnx

    nodes = onnx.load_from_string(model).graph.node
    products = [index for index, node in enumerate(nodes) if node.op_type in _MATRIX_OPERATIONS]
    whitening = [index for index in products if any(_WHITENING in name for name in nodes[index].input)]
    whitened = {name for index in whitening for name in nodes[index].output}
    readers = [index for index in products if nodes[index].input[0] in whitened]
    if whitening and float_layers >= WHOLE_HEADS_FROM:
        readers = [index for index in products if index > whitening[0]]
    # With the additions between the first layers, or these would round what stays in float.
    first = range(products[min(float_layers, len(products)) - 1] + 1) if float_layers else range(0)
    kept = {*first, *whitening, *readers, *_after_the_last_products(nodes)}
    return [name for index in sorted(kept) for name in (nodes[index].name, *nodes[index].output)]


def _after_the_last_products(nodes: Any) -> list[int]:
    """Positions of the nodes from whose outputs no matrix product is reached: of each head the last one, and after."""
    leading: set[str] = set()  # to a product
    last = []
    for index in range(len(nodes) - 1, -1, -1):
        leads = any(name in leading for name in nodes[index].output)
        if not leads:
            last.append(index)
        if leads or nodes[index].op_type in _MATRIX_OPERATIONS:
            leading.update(nodes[index].input)
    return last


def _reader(inputs: NDArray[Any]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Hands out the inputs a few at a time."""

        def __init__(self) -> None:
            self._batches = iter(_batches(inputs))

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT_NAME: batch}

    return Reader()


def _batches(inputs: NDArray[Any]) -> list[NDArray[Any]]:
    size = 1 if inputs.ndim >= 4 else 64
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what the quantisers print and log out of our own output."""
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
