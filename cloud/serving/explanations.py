"""Where and why: anomaly maps of images and windows, and the share of each feature or channel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cloud.methods import AnalyzerOutput
from cloud.serving.encoding import Samples, series_of
from cloud.serving.maps import Scale, contributions, to_bytes
from shared.preprocessing import columns_of

RESIDUAL = "residual"

Outputs = Mapping[str, AnalyzerOutput]
Shares = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Explanations:
    """Of a block. `maps`: (n, rows, columns) uint8 of images, (n, length, channels) of windows; `shares` of each
    sample's features or channels. None where the modality or the analyzers give none."""

    maps: NDArray[np.uint8] | None = None
    shares: list[Shares] | None = None


def explain(
    samples: Samples, outputs: Outputs, scales: Mapping[str, Scale], weights: Mapping[str, float]
) -> Explanations:
    """Maps and contributions of a block of samples, on the scales of normal ones.

    An image's map is the mean over the fused analyzers by their `weights`: a baseline is no part of the verdict.
    """
    patch_maps = {name: output.maps for name, output in outputs.items() if name in weights and output.maps is not None}
    if patch_maps:
        ratios = [scales[name].ratio(as_array(maps)[..., np.newaxis]) for name, maps in patch_maps.items()]
        mean = np.average(ratios, axis=0, weights=[weights[name] for name in patch_maps])
        return Explanations(to_bytes(mean.squeeze(-1)))
    odd = oddness(samples, outputs)
    if odd is None:
        return Explanations()
    ratio = scales[RESIDUAL].ratio(odd)
    names = samples.preprocessor.spec.value_channels
    shares = [contributions(sample, names) for sample in ratio]
    return Explanations(to_bytes(ratio) if ratio.ndim == 3 else None, shares)


def oddness(samples: Samples, outputs: Outputs) -> NDArray[np.float64] | None:
    """How odd each value of a sample is: (n, features), or (n, length, channels) of windows. None: nobody can tell.

    Of a window, how far each reading lies from what its channel is expected to be given the others. Of a row, how
    unlikely each value is beside the others, else how far it lies from what it would be were the row normal. A missing
    value is not odd.
    """
    series = series_of(samples.preprocessor)
    if series is not None:
        return None if samples.windows is None else series.residuals(samples.windows)
    if samples.inputs.ndim != 2:
        return None
    parts = columns_of(samples.inputs, samples.preprocessor.spec)
    width = len(samples.preprocessor.spec.value_channels)
    surprises = [output.surprises for output in outputs.values() if output.surprises is not None]
    found = [output.reconstruction for output in outputs.values() if output.reconstruction is not None]
    if surprises:
        odd = as_array(surprises[0]).reshape(len(samples), -1)[:, :width]
    elif found:
        odd = np.abs(parts.vectors - as_array(found[0]).reshape(len(samples), -1))[:, :width]
    else:
        return None
    return odd if parts.observed is None else np.where(parts.observed[:, :width], odd, 0.0)


def as_array(tensor: Tensor) -> NDArray[Any]:
    """The tensor's values as float64."""
    return tensor.detach().cpu().double().numpy()
