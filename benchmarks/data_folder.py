"""Folder of the data sets, set by `python -m benchmarks --data` or the variable VEDETTE_BENCH_DATA."""

import os
from pathlib import Path

VARIABLE = "VEDETTE_BENCH_DATA"


def data_folder() -> Path:
    """Return the data folder.

    Without a setting this is a folder that does not exist, so that benchmarks skip their data sets.
    """
    return Path(os.environ.get(VARIABLE) or "no-data-folder")
