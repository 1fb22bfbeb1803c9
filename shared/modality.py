"""Kinds of samples, in a module of their own so that commands can import them without NumPy."""

from enum import StrEnum


class Modality(StrEnum):
    """Kind of a sample."""

    TABULAR = "tabular"
    SERIES = "series"
    IMAGE = "image"
    VIDEO = "video"
