"""Series samples: one window of sensor readings each."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from shared.bundle import Bundle, InputSpec
from shared.modalities.readings import ReadingsType
from shared.modality import Modality
from shared.preprocessing import Preprocessor, SeriesPreprocessor


class SeriesType(ReadingsType):
    """Windows (length, channels) float32."""

    modality, rank = Modality.SERIES, 2

    def sample_values(self, spec: InputSpec) -> int:
        """Return time points times channels."""
        return len(spec.channels) * max(1, spec.window_length)

    def _fit(self, values: NDArray[Any] | Sequence[NDArray[Any]], spec: InputSpec) -> Preprocessor:
        return SeriesPreprocessor.fit(values, spec)

    def _load(self, bundle: Bundle, spec: InputSpec) -> Preprocessor:
        return SeriesPreprocessor.from_arrays(bundle.arrays(SeriesPreprocessor.file_path), spec)


SAMPLE_TYPE = SeriesType()
