"""Windows of sensor readings on the serving side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cloud.modalities.base import PreparedSamples, VectorModality, View
from cloud.modalities.tabular import on_device, vector_tensors
from shared.modality import Modality
from shared.preprocessing import ModePreprocessor, Preprocessor, SeriesPreprocessor

if TYPE_CHECKING:
    import torch

    from cloud.methods import AnalyzerOutput, Features
    from cloud.methods.encoders import Encoder


class Series(VectorModality):
    """Windows (length, channels): vectors of views, explained by a map of time points and channels."""

    name = Modality.SERIES
    noun = "window"
    upload_noun = "reading"
    view = View.TRACES
    source_kind = "replay"
    default_methods = ("time_estimation", "channel_imputation")
    has_value_map = True
    takes_new_heads = True
    splits_in_time = True

    def vector_features(self, inputs: NDArray[Any], preprocessor: Preprocessor, device: "torch.device") -> "Features":
        """Return the views of windows alone, from graph inputs (n, width)."""
        from cloud.methods import ViewFeatures

        vectors, observed, modes = vector_tensors(inputs, preprocessor, device)
        return ViewFeatures(vectors, observed, modes, surprise_columns=_surprise_columns(preprocessor))

    def features(self, samples: PreparedSamples, encoder: "Encoder | None", device: "torch.device") -> "Features":
        """Return the views of the windows, and the windows."""
        from cloud.methods import WindowFeatures

        assert samples.windows is not None
        vectors, observed, modes = vector_tensors(samples.inputs, samples.preprocessor, device)
        return WindowFeatures(
            vectors,
            observed,
            modes,
            surprise_columns=_surprise_columns(samples.preprocessor),
            windows=on_device(samples.windows.values.astype(np.float32), device),
            windows_observed=on_device(samples.windows.observed, device),
        )

    def value_deviations(
        self, samples: PreparedSamples, outputs: "Mapping[str, AnalyzerOutput]"
    ) -> NDArray[np.float64] | None:
        """Return how far each reading is from the value expected of its channel given the others."""
        series = series_preprocessor(samples.preprocessor)
        return None if series is None or samples.windows is None else series.residuals(samples.windows)


def _surprise_columns(preprocessor: Preprocessor) -> slice:
    series = series_preprocessor(preprocessor)
    assert series is not None
    return series.surprise_columns


def series_preprocessor(preprocessor: Preprocessor) -> SeriesPreprocessor | None:
    """Return the preprocessing of windows, also when operating modes wrap it; None for another modality."""
    inner = preprocessor.inner if isinstance(preprocessor, ModePreprocessor) else preprocessor
    return inner if isinstance(inner, SeriesPreprocessor) else None
