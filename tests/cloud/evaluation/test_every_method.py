"""`benchmarks/every_method.toml` lists every method."""

import tomllib
from pathlib import Path

from cloud.methods import ANALYZERS, Need
from cloud.modalities import cloud_modality
from cloud.training.settings import TrainingSettings
from shared.modality import Modality

SETTINGS = Path(__file__).parents[3] / "benchmarks" / "every_method.toml"


def test_every_method_is_listed_and_the_fused_methods_are_the_defaults() -> None:
    settings = TrainingSettings.model_validate(tomllib.loads(SETTINGS.read_text()))
    # The benchmark has no labels to learn from.
    assert sorted(settings.analyzers) == sorted(name for name in ANALYZERS if Need.DEFECTS not in ANALYZERS[name].needs)
    assert settings.fused == cloud_modality(Modality.TABULAR).default_methods
