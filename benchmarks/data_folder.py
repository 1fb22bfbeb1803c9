"""The folder of the data sets: option `--data` of `python -m benchmarks`, or the variable VEDETTE_BENCH_DATA."""

import os
from pathlib import Path

VARIABLE = "VEDETTE_BENCH_DATA"


def data_folder() -> Path:
    """Return the folder; where none is named, one that does not exist, so that benchmarks skip their data sets."""
    return Path(os.environ.get(VARIABLE) or "no-data-folder")
