"""Vedette: `from vedette import Detector`. The wire protocol of devices is in `vedette.v1`.

The detectors are loaded at first use: a device imports `vedette.v1` without the packages that training needs.
"""

import importlib
from typing import Any

__all__ = ["Detector", "SampleScore", "Scores", "VectorDetector"]
_MODULES = {
    "Detector": "cloud.api.detector",
    "SampleScore": "cloud.api.scores",
    "Scores": "cloud.api.scores",
    "VectorDetector": "cloud.api.estimator",
}


def __getattr__(name: str) -> Any:
    """Return a class of the Python API, loaded at first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'vedette' has no attribute {name!r}")
    try:
        module = importlib.import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        raise ImportError(f"vedette.{name} needs {error.name}: pip install 'vedette[train]'.") from error
    return getattr(module, name)


def __dir__() -> list[str]:
    """Return the names of the Python API beside the module's own."""
    return sorted({*globals(), *__all__})
