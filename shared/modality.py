"""The kinds of samples. Apart from `samples`, so that a command can name them without loading NumPy."""

from enum import StrEnum


class Modality(StrEnum):
    """The kind of a sample."""

    TABULAR = "tabular"
    SERIES = "series"
    IMAGE = "image"
    VIDEO = "video"
