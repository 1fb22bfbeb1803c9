"""Tests of the setting `effort`, which scales the steps of every training and is recorded in the bundle."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.methods.fit_context import TRAINING
from cloud.methods.restoration import MAX_SINGLE_METHOD_STEPS
from cloud.training import TrainingSettings, load_training_data, train_bundle
from cloud.training.modalities.image import TrainingImage
from cloud.training.modalities.tabular import TrainingTabular
from shared.diffusion.distillation import DistillationSettings
from shared.diffusion.training import ExponentialMovingAverage
from shared.modality import Modality

EFFORT = 0.02


@pytest.mark.parametrize("method", ["score_norm", "local_corruption", "latent"])
def test_every_training_runs_its_share_of_the_steps(method: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = np.random.default_rng(0).normal(size=(400, 2))
    np.savez(tmp_path / "rows.npz", X=(hidden @ [[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]]).astype(np.float32), y=np.zeros(400))
    steps = []
    update = ExponentialMovingAverage.update
    monkeypatch.setattr(
        ExponentialMovingAverage, "update", lambda average, module: (steps.append(1), update(average, module))
    )
    tolerances = {"rank_correlation": 0.0, "label_agreement": 0.0, "auroc_difference": 1.0}
    settings = TrainingSettings.model_validate(
        {"effort": EFFORT, "analyzers": (method,), "tolerances": tolerances, "name": "rows"}
    )
    data = load_training_data(tmp_path / "rows.npz", Modality.TABULAR)
    bundle = train_bundle(data, settings, Ed25519PrivateKey.generate())
    whole = TrainingSettings().distillation(TrainingTabular.distillation)
    own = (
        2 * MAX_SINGLE_METHOD_STEPS if method == "latent" else TRAINING.steps
    )  # trains both an autoencoder and a denoiser
    assert len(steps) == round(EFFORT * own) + round(EFFORT * whole.steps)
    assert bundle.manifest.training["settings"]["effort"] == EFFORT


def test_the_teacher_labels_fewer_inputs_and_no_count_becomes_zero() -> None:
    shortened = DistillationSettings(steps=3000, perturbed=60_000).shortened(0.1)
    assert (shortened.steps, shortened.perturbed) == (300, 6000)
    assert DistillationSettings(steps=3).shortened(0.01).steps == 1
    assert (
        TrainingSettings(effort=0.5, head=DistillationSettings(steps=10)).distillation(TrainingImage.distillation).steps
        == 5
    )
