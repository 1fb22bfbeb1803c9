"""Least numbers of normal samples that a training needs, in words where there are too few."""

import math

from cloud.modalities import cloud_modality
from shared.calibration import MIN_CALIBRATION_SIZE, MIN_TRAINING_SIZE
from shared.modality import Modality

HELD_OUT_SHARE = 0.3  # of a series, which is split in time; the default of data.held_out_share


def minimum_normals() -> int:
    """Return the least number of normal samples; of an uploaded series of readings, of which windows are many."""
    return MIN_TRAINING_SIZE + MIN_CALIBRATION_SIZE


def minimum_windows() -> int:
    """Return the least number of separate windows, which are split in time by HELD_OUT_SHARE."""
    return math.ceil(MIN_CALIBRATION_SIZE / HELD_OUT_SHARE) + 1


def upload_shortage(modality: Modality, normals: int) -> str:
    """Return a sentence where an upload has too few normal samples, with how many more are needed; else ""."""
    kind = cloud_modality(modality)
    return _sentence(kind.upload_noun or kind.noun, normals, minimum_normals())


def stored_shortage(modality: Modality, normals: int) -> str:
    """Return a sentence where stored samples are too few, or cannot be trained on at all; else ""."""
    kind = cloud_modality(modality)
    least = minimum_windows() if kind.splits_in_time else minimum_normals()
    return kind.store_refusal or _sentence(kind.noun, normals, least)


def _sentence(noun: str, normals: int, least: int) -> str:
    if normals >= least:
        return ""
    return f"{normals} normal {noun}s, and training needs at least {least}: {least - normals} more are needed."
