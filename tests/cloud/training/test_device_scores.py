"""Tests that calibrations use exactly the scores that a device computes."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cloud.evaluation.scoring import BundleScorer, method_name
from edge.screener import Screener, load_screener
from shared.bundle import REFERENCE_FILE
from shared.calibration import Calibration
from shared.engines import EngineConfiguration, load_engine
from shared.modality import Modality
from shared.samples import SampleBatch
from tests.cloud.training.conftest import Trained, pressure

ARTEFACTS = ("fp32_onnxruntime", "int8_openvino", "int8_onnxruntime")
BATCHES = (1, 7, 64, 1000)


@pytest.fixture(params=["tabular", "series", "image"])
def trained(request: pytest.FixtureRequest) -> Trained:
    return request.getfixturevalue(request.param)


def samples(trained: Trained) -> NDArray[np.generic]:
    """Return samples of the bundle's modality in the form that a source yields."""
    spec, generator = trained.bundle.manifest.input, np.random.default_rng(0)
    if trained.bundle.manifest.modality is Modality.IMAGE:
        return generator.integers(0, 256, (40, spec.image_height, spec.image_width, 3), np.uint8)
    if trained.bundle.manifest.modality is Modality.SERIES:
        values = pressure()[0][:3000, None]
        return np.lib.stride_tricks.sliding_window_view(values, spec.window_length, axis=0).transpose(0, 2, 1)[::7]
    from sklearn.datasets import load_breast_cancer

    return load_breast_cancer().data


def screened(screener: Screener, values: NDArray[np.generic], batch_size: int) -> NDArray[np.float64]:
    """Return scores (n,) of the agent's screener for this batch size."""
    batches = []
    for start in range(0, len(values), batch_size):
        part = values[start : start + batch_size]
        given = list(part) if screener.modality is Modality.IMAGE else part.astype(np.float32)
        batches.append(SampleBatch("s", screener.modality, given, np.zeros(len(part)), [""] * len(part)))
    return np.concatenate([screener.screen(batch).scores for batch in batches])


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_evaluation_scores_equal_those_of_the_agent_in_any_batch(
    trained: Trained, artefact: str, tmp_path: Path
) -> None:
    values = samples(trained)
    scores = (
        BundleScorer(trained.bundle, "cpu")
        .score([values])
        .methods[method_name(trained.bundle.manifest.artefact(artefact))]
    )
    screener = load_screener(trained.bundle, artefact, 64, tmp_path)
    # Outside the box of normal inputs the score contains a distance, which is a sum. Its last bit depends on the memory
    # address with ONNX Runtime, and on the batch size with OpenVINO.
    tolerance = 1e-6
    for batch_size in BATCHES:
        found = screened(screener, values, batch_size)
        np.testing.assert_allclose(found, scores.scores, rtol=tolerance, atol=0, err_msg=f"batches of {batch_size}")


@pytest.mark.parametrize("artefact", ARTEFACTS)
@pytest.mark.parametrize("batch_size", BATCHES)
@pytest.mark.parametrize("modality", ["tabular", "series"])
def test_calibration_scores_equal_those_of_a_device_bit_for_bit_in_any_batch(
    request: pytest.FixtureRequest, modality: str, artefact: str, batch_size: int, tmp_path: Path
) -> None:
    bundle = request.getfixturevalue(modality).bundle
    calibration = Calibration.from_arrays(bundle.arrays(bundle.manifest.artefact(artefact).calibration))
    engine, inputs = (
        load_engine(bundle, artefact, EngineConfiguration(tmp_path)),
        bundle.arrays(REFERENCE_FILE)["held_out"],
    )
    parts = [engine.start(inputs[at : at + batch_size]).result().scores for at in range(0, len(inputs), batch_size)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), calibration.scores)
