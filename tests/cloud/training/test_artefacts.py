"""Artefacts agree on both engines, or there is no bundle."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cloud.training import artefacts
from cloud.training.artefacts import GateSamples, build_artefacts
from cloud.training.export import export_onnx
from cloud.training.modalities.base import TrainingVectors
from cloud.training.screeners import VectorScreener
from cloud.training.screeners.vector import SLOPE_BEYOND
from cloud.training.settings import ToleranceSettings
from shared.calibration import Calibration
from shared.diffusion.distillation import DistillationSettings, distill_head
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.engines import EngineConfiguration, open_graph, run_graph
from shared.errors import ParityError
from shared.preprocessing.base import compress

TOLERANCES = ToleranceSettings().model_dump()


def screener(seed: int) -> VectorScreener:
    torch.manual_seed(seed)
    head = TimeEstimationHead(4, (32, 32, 32))  # deep enough that some layers stay in INT8
    return VectorScreener.within(head, np.zeros((1, 4)))


def samples() -> GateSamples:
    rows = np.random.default_rng(0).standard_normal((400, 4)).astype(np.float32)
    return GateSamples(rows[:200], rows[200:])


@pytest.mark.parametrize("quantiser", ["OpenVinoQuantiser", "OnnxRuntimeQuantiser"])
def test_a_graph_that_disagrees_on_one_engine_prevents_the_bundle(
    monkeypatch: pytest.MonkeyPatch, quantiser: str
) -> None:
    real = getattr(artefacts, quantiser)

    def of_another_screener(model: bytes, inputs: NDArray[Any], batch_size: int) -> Any:
        return real(export_onnx(screener(7)), inputs, batch_size)

    monkeypatch.setattr(artefacts, quantiser, of_another_screener)
    engine = quantiser.removesuffix("Quantiser").lower()
    with pytest.raises(ParityError, match=rf"int8_{engine}: its rank correlation .* is -?[\d.e-]+, below .* 0\.95\."):
        build_artefacts(screener(0), samples(), TrainingVectors.graphs, TOLERANCES, lambda stage, share: None)


def test_the_score_grows_by_the_slope_outside_the_box_and_is_the_head_s_inside() -> None:
    head = TimeEstimationHead(3)
    whole = VectorScreener(head, torch.tensor([6.0, 8.0, 6.0]))
    inside = torch.tensor([[5.9, -7.9, 0.0], [0.0, 0.0, -6.0]])
    outside = torch.tensor([[9.0, 12.0, 0.0]])  # 3 and 4 outside the box
    assert torch.equal(whole(inside), head(inside))
    added = whole(outside) - head(outside)
    assert float(added[0]) == pytest.approx(SLOPE_BEYOND * 0.5 * np.log1p(25.0), abs=1e-4)
    flat = TimeEstimationHead(3)
    with torch.no_grad():
        for parameter in flat.parameters():
            parameter.zero_()  # a head with constant output
    scores = VectorScreener(flat, torch.full((3,), 6.0))(10.0 ** torch.arange(1.0, 9.0).unsqueeze(1).expand(8, 3))
    assert (torch.diff(scores) > 0.9 * SLOPE_BEYOND * np.log(10.0)).all()


def test_scores_rise_with_the_distance_from_the_normals_on_every_engine() -> None:
    rows = np.random.default_rng(1).standard_normal((600, 4)).astype(np.float32)
    head = TimeEstimationHead(4)
    distil = DistillationSettings(steps=200, batch_size=256, perturbed=5000)
    distill_head(head, torch.from_numpy(rows[:400]), settings=distil, generator=torch.Generator().manual_seed(0))
    quantisation = 2.0 * rows[:300]
    whole = VectorScreener.within(head, quantisation, rows[400:])
    built = build_artefacts(
        whole, GateSamples(quantisation, rows[400:]), TrainingVectors.graphs, TOLERANCES, lambda stage, share: None
    )
    readings = np.zeros((6, 4))
    readings[:, 1] = (8.0, 16.0, 1e3, 1e6, 1e10, 1e300)
    far = compress(readings).astype(np.float32)
    graphs = {path.partition(".")[0]: data for path, data in built.files.items() if path.endswith(".onnx")}
    ir = {path[-4:]: data for path, data in built.files.items() if path.endswith((".xml", ".bin"))}
    configuration = EngineConfiguration()
    engines = {
        "fp32": open_graph("onnxruntime", graphs["edge/screener_fp32"], None, configuration),
        "int8_onnxruntime": open_graph("onnxruntime", graphs["edge/screener_int8_onnxruntime"], None, configuration),
        "int8_openvino": open_graph("openvino", ir[".xml"], ir[".bin"], configuration),
    }
    for name, engine in engines.items():
        scores = run_graph(engine, far).scores.astype(np.float64)
        # Rounding of the saturated head may lower the score slightly; the slope outweighs it.
        assert (np.diff(scores) > (-0.05 if name.startswith("int8") else 0.0)).all(), (name, scores)
        assert (scores[1:] > scores[0]).all(), (name, scores)
        # A reading far outside must be able to pass the level of one false alarm per day at 50 readings per second.
        alarm = Calibration.fit(run_graph(engine, rows[400:]).scores).p_values(scores[-1:]).values[0]
        assert alarm < 1 / (50 * 86_400), (name, alarm)
