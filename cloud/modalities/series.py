"""Windows of sensor readings on the serving side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cloud.modalities.base import CloudModality, PreparedSamples, View
from shared.modality import Modality
from shared.preprocessing import ModePreprocessor, Preprocessor, SeriesPreprocessor

if TYPE_CHECKING:
    from cloud.methods import AnalyzerOutput


class Series(CloudModality):
    """Windows (length, channels): vectors of views, explained by a map of time points and channels."""

    name = Modality.SERIES
    view = View.TRACES
    source_kind = "replay"
    default_methods = ("time_estimation", "channel_imputation")
    has_value_map = True
    takes_new_heads = True

    def value_deviations(
        self, samples: PreparedSamples, outputs: "Mapping[str, AnalyzerOutput]"
    ) -> NDArray[np.float64] | None:
        """Return how far each reading is from the value expected of its channel given the others."""
        series = series_preprocessor(samples.preprocessor)
        return None if series is None or samples.windows is None else series.residuals(samples.windows)


def series_preprocessor(preprocessor: Preprocessor) -> SeriesPreprocessor | None:
    """Return the preprocessing of windows, also when operating modes wrap it; None for another modality."""
    inner = preprocessor.inner if isinstance(preprocessor, ModePreprocessor) else preprocessor
    return inner if isinstance(inner, SeriesPreprocessor) else None
