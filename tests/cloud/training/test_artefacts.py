from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

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


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_there_is_no_bundle_if_one_engines_graph_disagrees(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    real = getattr(artefacts, f"quantise_{engine}")

    def of_another_screener(model: bytes, inputs: NDArray[Any], float_layers: int) -> Any:
        return real(export_onnx(screener(7)), inputs, float_layers)

    monkeypatch.setattr(artefacts, f"quantise_{engine}", of_another_screener)
    with pytest.raises(ParityError, match=f"int8_{engine}: its rank correlation"):
        build_artefacts(screener(0), examples(), TOLERANCES, lambda stage, share: None)
