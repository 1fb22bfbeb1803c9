"""Fitting of the image encoder: whitening and detail scales from normal images."""

import math
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cloud.methods.encoders.image import DEFAULT_DIM, DETAIL_DIM, ImageEncoder, smoothed
from cloud.training.encoders.corruption import is_bilevel
from cloud.training.encoders.pretrained import pretrained_backbone
from shared.diffusion.training import Progress

MAX_WHITENING_PATCHES = 100_000
# Share of the largest variance, chosen for the best agreement of head and nearest-neighbour distances.
WHITENING_FLOOR = 0.01
MIN_DEVIATION = 1e-2
BILEVEL_SAMPLE = 20


def fit_image_encoder(
    images: NDArray[Any],
    *,
    generator: torch.Generator,
    dim: int = DEFAULT_DIM,
    progress: Progress | None = None,
) -> tuple[ImageEncoder, Tensor]:
    """Fit the encoder on normal images (n, height, width, 3) uint8, on top of pretrained features.

    Also returns the whitened patch vectors (patches, dim) it was fitted on, a random subset from each image.
    Raises DataError for a size that the backbone cannot take, MissingExtraError without its weights.
    """
    encoder = ImageEncoder(images.shape[1], images.shape[2], dim, pretrained_backbone())
    encoder.bilevel = is_bilevel(images[:BILEVEL_SAMPLE])
    quota = math.ceil(MAX_WHITENING_PATCHES / len(images))
    kept, moments = [], torch.zeros(3, DETAIL_DIM, dtype=torch.float64)
    for pixels in encoder.batches(images, "cpu", progress):
        levels = encoder.levels(pixels)
        for features in smoothed(levels):
            rows = features.flatten(1).T
            kept.append(rows[torch.randperm(len(rows), generator=generator)[:quota]])
        details = encoder.details(levels).double()
        moments[0] += details[:, 0].numel()
        moments[1:] += torch.stack([details.sum((0, 2, 3)), details.square().sum((0, 2, 3))])
    compared = torch.cat(kept)
    _whiten_by(encoder.whitening, compared.double(), WHITENING_FLOOR)
    mean, square = moments[1:] / moments[0]
    deviation = (square - mean.square()).clamp(min=MIN_DEVIATION**2).sqrt()
    encoder.detail_scale = torch.stack([mean, deviation]).float()
    return encoder, F.linear(compared, encoder.whitening.weight.flatten(1), encoder.whitening.bias)


def _whiten_by(layer: nn.Conv2d, patches: Tensor, floor: float) -> None:
    """Set a 1 x 1 convolution from patches (n, features): leading principal components, each to unit variance."""
    mean = patches.mean(dim=0)
    centred = patches - mean
    variances, vectors = torch.linalg.eigh(centred.T @ centred / max(len(patches) - 1, 1))
    kept = layer.out_channels
    variances, vectors = variances.flip(0)[:kept], vectors.flip(1)[:, :kept]
    # Without a floor, noise in directions that normal images hardly use would dominate.
    deviations = torch.sqrt(variances.clamp(min=0) + floor * variances[0].clamp(min=1e-6))
    weight = (vectors / deviations).T
    layer.load_state_dict({"weight": weight[:, :, None, None].float(), "bias": -(weight @ mean).float()})
