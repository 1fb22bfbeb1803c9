"""Choices that a training run makes from its settings: the analyzers and the bundle's name."""

import re
from pathlib import Path

from cloud.methods import ANALYZERS, BASELINES
from cloud.modalities import cloud_modality
from cloud.training.modalities import training_modality
from cloud.training.settings import TrainingSettings
from shared.errors import DataError, SettingsError
from shared.modality import Modality


def checked_methods(settings: TrainingSettings, modality: Modality) -> tuple[str, ...]:
    """Return the analyzers named in the settings, none for the modality's defaults.

    Raises SettingsError for an analyzer that does not exist or cannot be fused.
    """
    for name in settings.analyzers:
        if name not in ANALYZERS:
            raise SettingsError(f"analyzers: there is no {name!r}; there are {', '.join(ANALYZERS)}.")
    fitted = settings.analyzers or (*cloud_modality(modality).default_methods, *BASELINES)
    for name in settings.fused:
        if name not in fitted:
            raise SettingsError(f"fused: {name!r} is not among the analyzers fitted, {', '.join(fitted)}.")
    lacking = training_modality(modality).untaught
    untaught = [name for name in settings.fused or settings.analyzers if ANALYZERS[name].needs & lacking]
    if untaught:
        raise SettingsError(
            f"fused: {', '.join(sorted(untaught))} see more than the vectors that the screener's teacher perturbs: "
            "name the other analyzers under fused, and these give their opinion beside the verdict."
        )
    return settings.analyzers


def bundle_name(origin: str) -> str:
    """Return a bundle's name made from the name of its data; raise DataError if no character of it can be used."""
    name = re.sub(r"[^a-z0-9_-]+", "-", Path(origin).name.partition(".")[0].lower()).strip("-_")[:64]
    if not name:
        raise DataError(f"{origin}: no bundle name can be made of it; set one with --name.")
    return name
