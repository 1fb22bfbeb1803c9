"""Graphs of images and clips compute what their modules compute, at any batch size."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from cloud.methods import pooling
from cloud.methods.encoders import ImageEncoder, VideoEncoder
from cloud.methods.encoders.image import DETAIL_DIM, FINE_DETAILS
from cloud.training.export import _join_padding, export_onnx
from cloud.training.screeners.image import ImageScreener
from cloud.training.screeners.video import VideoScreener
from shared.diffusion.local_corruption import CorruptionHead
from shared.diffusion.time_estimation import TimeEstimationHead

DIM = 16


def screener_of(kind: str) -> ImageScreener | VideoScreener:
    """A module with random weights."""
    torch.manual_seed(3)
    if kind == "clips":
        video = VideoEncoder(64, 96, 3)
        return VideoScreener(video, TimeEstimationHead(video.dim))
    corruption = CorruptionHead(DETAIL_DIM, FINE_DETAILS) if kind != "one head" else None
    encoder = ImageEncoder(64, 96, DIM)
    encoder.bilevel = kind == "bilevel"
    return ImageScreener(encoder, TimeEstimationHead(DIM), corruption)


@pytest.mark.parametrize("kind", ["one head", "two heads", "bilevel", "tiles", "clips"])
def test_a_graph_computes_what_its_module_does_at_any_batch_size(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "tiles":
        monkeypatch.setattr(pooling, "TILE_SIDE", 6)
        monkeypatch.setattr(pooling, "TILE_OVERLAP", 2)
    screener = screener_of(kind)
    model = export_onnx(screener)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(1)
    for count in (1, 2, 5):
        samples = generator.integers(0, 256, (count, *screener.example().shape[1:]), dtype=np.uint8)
        with torch.inference_mode():
            scores, maps = (output.numpy() for output in screener(torch.from_numpy(samples)))
        found = session.run(["score", "anomaly_map"], {"input": samples})
        assert [output.shape for output in found] == [scores.shape, maps.shape]
        assert found[0] == pytest.approx(scores, abs=1e-3 * float(np.ptp(maps)))
        assert found[1] == pytest.approx(maps, abs=1e-3 * float(np.ptp(maps)))


@pytest.mark.parametrize("kind", ["two heads", "clips"])
def test_a_graph_has_no_padding_and_no_constant_that_nothing_reads(kind: str) -> None:
    graph = onnx.load_from_string(export_onnx(screener_of(kind))).graph
    assert "Pad" not in {node.op_type for node in graph.node}
    read = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= read


@pytest.mark.parametrize(
    ("pads", "value", "mode", "left"),
    [
        ([0, 0, 1, 1, 0, 0, 1, 1], 0.0, "constant", 0),
        ([0, 0, 1, 1, 0, 0, 1, 1], 1.0, "constant", 1),
        ([0, 0, 1, 1, 0, 0, 1, 1], 0.0, "reflect", 1),
        ([0, 1, 0, 0, 0, 0, 0, 0], 0.0, "constant", 1),
    ],
)
def test_only_zeros_around_rows_and_columns_become_part_of_a_convolution(
    pads: list[int], value: float, mode: str, left: int
) -> None:
    channels = 1 + pads[1]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Pad", ["x", "sizes", "value"], ["padded"], mode=mode),
            onnx.helper.make_node("Conv", ["padded", "weights"], ["y"], pads=[0, 0, 0, 0]),
        ],
        "graph",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 1, 4, 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [
            onnx.numpy_helper.from_array(np.array(pads, np.int64), "sizes"),
            onnx.numpy_helper.from_array(np.array(value, np.float32), "value"),
            onnx.numpy_helper.from_array(np.ones((1, channels, 3, 3), np.float32), "weights"),
        ],
    )
    _join_padding(graph)
    assert sum(node.op_type == "Pad" for node in graph.node) == left
