"""Explanations of verdicts: anomaly maps of images and windows, and the share of each feature or channel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cloud.methods import AnalyzerOutput
from cloud.modalities import cloud_modality
from cloud.serving.encoding import Samples
from cloud.serving.maps import Scale, contributions, to_bytes

RESIDUAL = "residual"  # key of the scale of value deviations

Outputs = Mapping[str, AnalyzerOutput]
Shares = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Explanations:
    """Explanations of a block of samples.

    Attributes:
        maps: (n, rows, columns) uint8 for images, (n, length, channels) for windows; None for rows.
        shares: Share of each feature or channel, by sample; empty for a sample that deviates in none, None where the
            modality or the analyzers give none.
    """

    maps: NDArray[np.uint8] | None = None
    shares: list[Shares] | None = None


def explain(
    samples: Samples, outputs: Outputs, scales: Mapping[str, Scale], weights: Mapping[str, float]
) -> Explanations:
    """Return maps and contributions of a block of samples, on the scales of normal ones.

    The map of an image is the mean over the fused analyzers by their `weights`; a baseline is not part of it.
    """
    patch_maps = {name: output.maps for name, output in outputs.items() if name in weights and output.maps is not None}
    if patch_maps:
        ratios = [scales[name].ratio(as_array(maps)[..., np.newaxis]) for name, maps in patch_maps.items()]
        mean = np.average(ratios, axis=0, weights=[weights[name] for name in patch_maps])
        return Explanations(to_bytes(mean.squeeze(-1)))
    modality = cloud_modality(samples.preprocessor.modality)
    deviations = modality.value_deviations(samples, outputs)
    if deviations is None:
        return Explanations()
    ratio = scales[RESIDUAL].ratio(deviations)
    names = samples.preprocessor.spec.value_channels
    return Explanations(to_bytes(ratio) if modality.has_value_map else None, contributions(ratio, names))


def as_array(tensor: Tensor) -> NDArray[Any]:
    """Return the values of a tensor as float64."""
    return tensor.detach().cpu().double().numpy()
