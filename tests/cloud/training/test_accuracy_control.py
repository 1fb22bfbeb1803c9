"""The most sensitive layers return to float where INT8 fails the gate."""

import itertools
import math
from collections.abc import Collection

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn

from cloud.training.accuracy_control import fewest_in_float, rank_layers
from cloud.training.artefacts import BuiltArtefacts, GateSamples, build_artefacts
from cloud.training.export import export_onnx
from cloud.training.layers import Layers
from cloud.training.modalities.base import EncodedModality
from cloud.training.quantise import OnnxRuntimeQuantiser
from cloud.training.settings import ToleranceSettings
from shared.bundle import INT8_ONNXRUNTIME, INT8_OPENVINO
from shared.errors import ParityError

TOLERANCES = ToleranceSettings().model_dump()
DEPTH, WIDTH, SENSITIVE = 12, 24, 7
GAIN = 3000.0


class SensitiveNetwork(nn.Module):
    """Convolutions with one layer whose input has a channel GAIN times as large as the others, with tiny weights."""

    output_names = ("score", "anomaly_map")

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        widths = [3, *[WIDTH] * (DEPTH - 1), 1]
        self.layers = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, padding=1) for inputs, outputs in itertools.pairwise(widths)
        )
        with torch.no_grad():
            for layer in self.layers:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            self.layers[SENSITIVE - 1].weight[0] *= GAIN
            self.layers[SENSITIVE - 1].bias[0] *= GAIN
            self.layers[SENSITIVE].weight[:, 0] /= GAIN
        self.eval().requires_grad_(False)

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        x = (input.permute(0, 3, 1, 2).float() - 127.0) / 64.0
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        found = self.layers[-1](x).squeeze(1)
        return found.mean(dim=(1, 2)), found

    def example(self) -> Tensor:
        return torch.zeros(2, 16, 16, 3, dtype=torch.uint8)


def images(count: int, seed: int) -> np.ndarray:
    """Return images of noise with a random contrast per image."""
    generator = np.random.default_rng(seed)
    contrast = generator.uniform(0.2, 1.0, (count, 1, 1, 3))
    blocks = generator.uniform(-1.0, 1.0, (count, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return (127.5 + 127.5 * contrast * blocks).astype(np.uint8)


@pytest.fixture(scope="module")
def built() -> BuiltArtefacts:
    samples = GateSamples(images(32, 0), images(150, 1))
    return build_artefacts(SensitiveNetwork(), samples, EncodedModality.graphs, TOLERANCES, lambda stage, share: None)


@pytest.mark.parametrize("artefact", [INT8_OPENVINO, INT8_ONNXRUNTIME])
def test_the_sensitive_layer_and_few_others_stay_in_float(built: BuiltArtefacts, artefact: str) -> None:
    in_float = built.float_layers[artefact]
    always = {"layers.0", "layers.1", "layers.2", f"layers.{DEPTH - 1}"}
    assert built.layers == DEPTH
    assert f"layers.{SENSITIVE}" in in_float
    assert set(in_float) - always <= {f"layers.{SENSITIVE - 1}", f"layers.{SENSITIVE}"}
    assert built.parity[artefact].rank_correlation >= TOLERANCES["rank_correlation"]


def test_the_reported_layers_are_in_float_in_the_graph(built: BuiltArtefacts) -> None:
    graph = onnx.load_from_string(built.files["edge/screener_int8_onnxruntime.onnx"]).graph
    weights = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    assert len(weights) == DEPTH
    found = {name.removesuffix(".weight") for name in weights if name.endswith(".weight")}
    assert found == set(built.float_layers[INT8_ONNXRUNTIME])


def test_sums_of_two_products_fit_into_sixteen_bits(built: BuiltArtefacts) -> None:
    import openvino

    graph = onnx.load_from_string(built.files["edge/screener_int8_onnxruntime.onnx"]).graph
    found = [numpy_helper.to_array(part) for part in graph.initializer if part.data_type == onnx.TensorProto.INT8]
    weights = {INT8_ONNXRUNTIME: [part for part in found if part.ndim == 4]}
    stem = "edge/screener_int8_openvino"
    model = openvino.Core().read_model(built.files[f"{stem}.xml"], built.files[f"{stem}.bin"])
    constants = [operation for operation in model.get_ops() if operation.get_type_name() == "Constant"]
    weights[INT8_OPENVINO] = [part.data for part in constants if part.get_element_type() == openvino.Type.i8]
    for artefact, tensors in weights.items():
        assert len(tensors) == DEPTH - len(built.float_layers[artefact])
        assert max(int(np.abs(part.astype(int)).max()) for part in tensors) * 2 * 255 < 2**15


def test_the_ranking_starts_with_the_sensitive_layers() -> None:
    model = export_onnx(SensitiveNetwork())
    names = [layer.name for layer in Layers.of(model).all if layer.may_be_int8]
    ranking = rank_layers(model, names, (), OnnxRuntimeQuantiser(model, images(16, 0), 1), images(8, 1))
    assert sorted(ranking) == sorted(names)
    assert set(ranking[:2]) == {f"layers.{SENSITIVE - 1}", f"layers.{SENSITIVE}"}


@given(count=st.integers(1, 60), data=st.data())
def test_the_minimum_of_float_layers_is_found_in_few_attempts(count: int, data: st.DataObject) -> None:
    needed, attempts = data.draw(st.integers(0, count - 1)), []

    def attempt(in_float: Collection[str]) -> int:
        attempts.append(tuple(in_float))
        if len(in_float) < needed:
            raise ParityError("its rank correlation is 0.5")
        return len(in_float)

    ranking = [f"layer {index}" for index in range(count)]
    assert fewest_in_float(attempt, lambda: ranking) == (needed, tuple(ranking[:needed]))
    assert len(attempts) <= 2 * math.log2(count) + 3


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_a_graph_that_passes_only_in_float_is_refused_with_its_last_figure(count: int) -> None:
    def attempt(in_float: Collection[str]) -> None:
        if len(in_float) < count or not count:
            raise ParityError(f"its rank correlation is 0.{len(in_float)}.")

    with pytest.raises(ParityError, match=rf"correlation is 0\.{max(0, count - 1)}\."):
        fewest_in_float(attempt, lambda: [f"layer {index}" for index in range(count)])
