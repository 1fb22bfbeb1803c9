"""Tabular samples: one row of features each."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from shared.bundle import Bundle, InputSpec
from shared.modalities.readings import ReadingsType
from shared.modality import Modality
from shared.preprocessing import Preprocessor, TabularPreprocessor


class TabularType(ReadingsType):
    """Rows (features,) float32."""

    modality, rank = Modality.TABULAR, 1

    def sample_values(self, spec: InputSpec) -> int:
        """Return the number of features."""
        return len(spec.channels)

    def _fit(self, values: NDArray[Any] | Sequence[NDArray[Any]], spec: InputSpec) -> Preprocessor:
        return TabularPreprocessor.fit(values, spec)

    def _load(self, bundle: Bundle, spec: InputSpec) -> Preprocessor:
        return TabularPreprocessor.from_arrays(bundle.arrays(TabularPreprocessor.file_path), spec)


SAMPLE_TYPE = TabularType()
