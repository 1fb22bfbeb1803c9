"""Least numbers of normal samples that a training needs, in words where there are too few."""

import math

from shared.calibration import MIN_CALIBRATION_SIZE, MIN_TRAINING_SIZE
from shared.modality import Modality

HELD_OUT_SHARE = 0.3  # of a series, which is split in time; the default of data.held_out_share
_WORDS = {Modality.TABULAR: "rows", Modality.SERIES: "readings", Modality.IMAGE: "images", Modality.VIDEO: "clips"}


def minimum_normals(modality: Modality) -> int:
    """Return the least number of normal samples; of an uploaded series of readings, of which windows are many."""
    return MIN_TRAINING_SIZE + MIN_CALIBRATION_SIZE


def minimum_windows() -> int:
    """Return the least number of separate windows, which are split in time by HELD_OUT_SHARE."""
    return math.ceil(MIN_CALIBRATION_SIZE / HELD_OUT_SHARE) + 1


def shortage(modality: Modality, normals: int, *, are_windows: bool = False) -> str:
    """Return a sentence where there are too few normal samples, with how many more are needed; else ""."""
    least = minimum_windows() if are_windows else minimum_normals(modality)
    if normals >= least:
        return ""
    word = "windows" if are_windows else _WORDS[modality]
    return f"{normals} normal {word}, and training needs at least {least}: {least - normals} more are needed."
