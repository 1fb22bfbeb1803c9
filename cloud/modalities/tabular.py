"""Table rows on the serving side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cloud.modalities.base import PreparedSamples, VectorModality, View
from shared.modality import Modality
from shared.preprocessing import Preprocessor, columns_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cloud.methods import AnalyzerOutput, Features
    from cloud.methods.encoders import Encoder


class Tabular(VectorModality):
    """Rows of a table: vectors, explained by the share of each feature."""

    name = Modality.TABULAR
    noun = "row"
    view = View.TABLE
    source_kind = "replay"
    default_methods = ("time_estimation", "quantile_time_estimation", "denoising_likelihood", "masked_likelihood")
    takes_new_heads = True

    def vector_features(self, inputs: NDArray[Any], preprocessor: Preprocessor, device: "torch.device") -> "Features":
        """Return the vectors of graph inputs (n, width), with their mask and modes."""
        from cloud.methods import VectorFeatures

        vectors, observed, modes = vector_tensors(inputs, preprocessor, device)
        return VectorFeatures(vectors, observed, modes)

    def features(self, samples: PreparedSamples, encoder: "Encoder | None", device: "torch.device") -> "Features":
        """Return the vectors of the rows."""
        return self.vector_features(samples.inputs, samples.preprocessor, device)

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


def vector_tensors(
    inputs: NDArray[Any], preprocessor: Preprocessor, device: "torch.device"
) -> "tuple[Tensor, Tensor | None, Tensor | None]":
    """Return vectors (n, 1, dim), their mask of that shape and modes (n,) of graph inputs (n, width)."""
    columns = columns_of(np.ascontiguousarray(inputs, dtype=np.float32), preprocessor.spec)
    return (
        on_device(columns.vectors, device).flatten(1).unsqueeze(1),
        None if columns.observed is None else on_device(columns.observed, device).unsqueeze(1),
        None if columns.modes is None else on_device(columns.modes, device),
    )


def on_device(array: NDArray[Any], device: "torch.device") -> "Tensor":
    """Return a tensor of the array on `device`."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def _rows(values: "Tensor") -> NDArray[Any]:
    return values.detach().cpu().double().numpy().reshape(len(values), -1)
