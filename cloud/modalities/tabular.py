"""Table rows on the serving side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cloud.modalities.base import CloudModality, PreparedSamples, View
from shared.modality import Modality
from shared.preprocessing import columns_of

if TYPE_CHECKING:
    from torch import Tensor

    from cloud.methods import AnalyzerOutput


class Tabular(CloudModality):
    """Rows of a table: vectors, explained by the share of each feature."""

    name = Modality.TABULAR
    view = View.TABLE
    source_kind = "replay"
    default_methods = ("time_estimation", "denoising_likelihood", "masked_likelihood")
    takes_new_heads = True

    def value_deviations(
        self, samples: PreparedSamples, outputs: "Mapping[str, AnalyzerOutput]"
    ) -> NDArray[np.float64] | None:
        """Return how unlikely each value is given the others, else its distance from the reconstruction."""
        columns = columns_of(samples.inputs, samples.preprocessor.spec)
        width = len(samples.preprocessor.spec.value_channels)
        surprises = [output.surprises for output in outputs.values() if output.surprises is not None]
        found = [output.reconstruction for output in outputs.values() if output.reconstruction is not None]
        if surprises:
            deviations = _rows(surprises[0])[:, :width]
        elif found:
            deviations = np.abs(columns.vectors - _rows(found[0]))[:, :width]
        else:
            return None
        return deviations if columns.observed is None else np.where(columns.observed[:, :width], deviations, 0.0)


def _rows(values: "Tensor") -> NDArray[Any]:
    return values.detach().cpu().double().numpy().reshape(len(values), -1)
