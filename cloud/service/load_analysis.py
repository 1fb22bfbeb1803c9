"""Loading of the analysis of a bundle, as the service does it unless a caller brings its own."""

import functools
from collections.abc import Callable
from typing import TypeAlias

from cloud.analysis_settings import AnalysisSettings
from cloud.serving.ports import Judge
from shared.bundle import Bundle
from shared.garbage import skip_loaded_objects

LoadAnalysis: TypeAlias = Callable[[Bundle], Judge]


def loader(settings: AnalysisSettings) -> LoadAnalysis:
    """Return a function that loads the analysis of a bundle. Blocking; the first call imports PyTorch."""
    # Once: a later call would keep analyses for ever that the cache has dropped.
    skip_once = functools.cache(skip_loaded_objects)

    def load(bundle: Bundle) -> Judge:
        from cloud.serving.analysis import load_analysis

        analysis = load_analysis(
            bundle, settings.device, settings.false_alarm_rate, settings.precision, compiled=settings.compile
        )
        skip_once()  # those of PyTorch, too
        return analysis

    return load
