import numpy as np
import pytest
import torch

from cloud.encoders import VectorScreener
from cloud.training import artefacts
from cloud.training.artefacts import Examples, build_artefacts
from cloud.training.export import export_onnx
from cloud.training.settings import ToleranceSettings
from shared.diffusion import TimeEstimationHead
from shared.errors import ParityError

TOLERANCES = ToleranceSettings().model_dump()


def screener(seed: int) -> VectorScreener:
    torch.manual_seed(seed)
    return VectorScreener(TimeEstimationHead(4, (32, 32, 32)))  # deep enough for something to stay in INT8


def examples() -> Examples:
    rows = np.random.default_rng(0).standard_normal((400, 4)).astype(np.float32)
    return Examples(rows[:200], rows[200:])


def disagreeing(model: bytes, inputs: object, float_layers: int) -> bytes:
    """The graph of another screener."""
    return export_onnx(screener(7))


def test_a_graph_that_disagrees_is_left_out_if_the_other_engines_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artefacts, "quantise_onnxruntime", disagreeing)
    built = build_artefacts(screener(0), examples(), TOLERANCES, lambda stage, share: None)
    assert [artefact.name for artefact in built.artefacts] == ["fp32_onnxruntime", "int8_openvino"]
    assert built.preferred == "int8_openvino"
    assert not any("int8_onnxruntime" in path for path in built.files)
    (note,) = built.notes
    assert "int8_onnxruntime" in note
    assert "rank correlation" in note


def test_no_bundle_without_one_int8_graph_that_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artefacts, "quantise_onnxruntime", disagreeing)
    strict = TOLERANCES | {"rank_correlation": 1.0}
    with pytest.raises(ParityError, match="int8_"):
        build_artefacts(screener(0), examples(), strict, lambda stage, share: None)
