"""The settings that put every method into a benchmark name every method."""

import tomllib
from pathlib import Path

from cloud.methods import ANALYZERS
from cloud.modalities import cloud_modality
from cloud.training.settings import TrainingSettings
from shared.modality import Modality

SETTINGS = Path(__file__).parents[3] / "benchmarks" / "every_method.toml"


def test_every_method_has_its_row_and_the_verdict_stays_the_default_one() -> None:
    settings = TrainingSettings.model_validate(tomllib.loads(SETTINGS.read_text()))
    assert sorted(settings.analyzers) == sorted(ANALYZERS)
    assert settings.fused == cloud_modality(Modality.TABULAR).default_methods
