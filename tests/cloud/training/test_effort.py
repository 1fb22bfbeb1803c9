"""Tests of the setting `effort`, which scales the steps of every training and is recorded in the bundle."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.methods.encoders.image import ImageEncoder
from cloud.methods.fit_context import TRAINING
from cloud.methods.restoration import MAX_SINGLE_METHOD_STEPS
from cloud.training import TrainingSettings, load_training_data, train_bundle
from cloud.training.effort import effort_settings
from cloud.training.encoders import choose_size
from cloud.training.encoders.corrupted_patches import MAX_PIXELS
from cloud.training.modalities.image import TrainingImage
from cloud.training.modalities.tabular import TrainingTabular
from shared.cli import main
from shared.diffusion.distillation import DistillationSettings
from shared.diffusion.training import ExponentialMovingAverage
from shared.errors import SettingsError
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


def test_first_look_lowers_steps_and_size_and_yields_to_a_given_size() -> None:
    settings = TrainingSettings().changed(effort_settings("first-look"))
    assert settings.effort == 0.05
    assert choose_size([(1000, 1000)], settings.image.max_pixels) == (256, 256)
    assert effort_settings("0.25") == {"effort": 0.25}
    assert effort_settings("") == {}


@pytest.mark.parametrize("text", ["quick", "1.5", "-0.1", "nan", "0"])
def test_an_unknown_effort_is_refused_with_the_choices(text: str) -> None:
    with pytest.raises(SettingsError, match=r"number above 0 and up to 1.*or first-look"):
        effort_settings(text)


def test_the_command_takes_a_named_effort(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--modality", "image", "--effort", "first-look", "--image-size", "512", "--print-config")
    monkeypatch.setattr("sys.argv", ["vedette", "train", "photos", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert '"effort": 0.05' in printed or "effort = 0.05" in printed
    assert "65536" in printed
    assert "512" in printed


def test_a_lower_effort_encodes_fewer_copies_of_large_images(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    monkeypatch.setattr(
        "cloud.training.modalities.image.corrupted_patches", lambda *_, max_pixels, **__: limits.append(max_pixels)
    )
    encoder = object.__new__(ImageEncoder)
    for effort in (1.0, 0.1):
        TrainingImage().corrupted_patches(encoder, np.zeros((1, 8, 8, 3), np.uint8), 0, effort, lambda share: None)
    assert limits == [MAX_PIXELS, pytest.approx(0.1 * MAX_PIXELS)]
