"""Screener of images as one torch module, ready to export and quantise."""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cloud.methods.encoders import ImageEncoder
from cloud.methods.pooling import PlaceScale, image_scores, peak_scores
from cloud.training.screeners.layers import as_convolution
from shared.diffusion.local_corruption import CorruptionHead
from shared.diffusion.time_estimation import TimeEstimationHead

EQUAL_WEIGHTS = (0.5, 0.5)
SCALING_IMAGES = 128  # sufficient for a mean and a deviation at each place
MAX_SCALING_PIXELS, MIN_SCALING_IMAGES = SCALING_IMAGES * 640 * 640, 20  # fewer images where they are large


class ImageScreener(nn.Module):
    """Images (batch, height, width, 3) uint8 to scores (batch,) and anomaly maps (batch, rows, columns).

    The score is a weighted mean over up to two heads. The distilled head estimates the distance of each patch from
    normal patches. The optional corruption head detects corrupted places. Both are standardised on normal images, the
    distilled head at each place separately. The weights are those of the fusion.
    """

    output_names = ("score", "anomaly_map")
    places: Tensor
    opinions: Tensor

    def __init__(
        self, encoder: ImageEncoder, head: TimeEstimationHead, corruption: CorruptionHead | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.patch_head = nn.Sequential(*(as_convolution(layer) for layer in head.layers))
        self.corruption = corruption
        # Mean and deviation of the distilled head at each place; mean and deviation of each head's image scores;
        # weights.
        self.register_buffer("places", torch.stack([torch.zeros(encoder.grid), torch.ones(encoder.grid)]))
        count = 1 if corruption is None else 2
        weights = torch.full((count,), 1.0 / count)
        self.register_buffer("opinions", torch.stack([torch.zeros(count), torch.ones(count), weights]))
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def fit(self, normal: NDArray[Any], weights: Sequence[float] = EQUAL_WEIGHTS) -> None:
        """Set the scales from normal images (n, height, width, 3) uint8, and the weights of the heads."""
        maps = [self._maps(torch.from_numpy(normal[index : index + 1])) for index in range(len(normal))]
        first, *rest = (torch.cat(of_one) for of_one in zip(*maps, strict=True))
        scale = PlaceScale.fit(first.flatten(1))
        self.places = torch.stack([scale.mean, scale.deviation]).reshape(2, *self.encoder.grid).clone()
        scores = torch.stack(_scores(self._placed(first, *rest)))
        deviations = scores.std(dim=1, correction=0).clamp(min=1e-3)
        shares = torch.tensor(weights[: len(scores)])
        self.opinions = torch.stack([scores.mean(dim=1), deviations, shares / shares.sum()]).clone()

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (batch,) and anomaly maps (batch, rows, columns), weighted means over the heads."""
        maps = self._placed(*self._maps(input))
        scores, anomaly_map = [], []
        for index, (of_one, score) in enumerate(zip(maps, _scores(maps), strict=True)):
            mean, deviation, weight = self.opinions[:, index]
            scores.append((score - mean) * (weight / deviation))
            anomaly_map.append((of_one - mean) * (weight / deviation))
        return _sum(scores), _sum(anomaly_map)

    def example(self) -> Tensor:
        """Return two images, for the export."""
        return torch.zeros(2, self.encoder.height, self.encoder.width, 3, dtype=torch.uint8)

    def _maps(self, input: Tensor) -> tuple[Tensor, ...]:
        views = self.encoder(input)
        distilled = self.patch_head(views.vectors).squeeze(1)
        return (distilled,) if self.corruption is None else (distilled, self.corruption(views.details))

    def _placed(self, distilled: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        return (distilled - self.places[0]) / self.places[1], *others


def _scores(maps: Sequence[Tensor]) -> list[Tensor]:
    """Return scores (batch,) of the maps (batch, rows, columns) of the distilled head and the corruption head."""
    pooled = (image_scores, peak_scores)
    return [pool(of_one) for pool, of_one in zip(pooled, maps, strict=False)]


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def image_screener(
    encoder: ImageEncoder,
    head: TimeEstimationHead,
    normal: NDArray[Any],
    corruption: CorruptionHead | None = None,
    weights: Sequence[float] = EQUAL_WEIGHTS,
) -> ImageScreener:
    """Return the screener of images, scaled on `normal` images (n, height, width, 3) uint8.

    `weights`: of the distilled head and the corruption head.
    """
    screener = ImageScreener(encoder, head, corruption)
    bound = max(MIN_SCALING_IMAGES, MAX_SCALING_PIXELS // (encoder.height * encoder.width))
    screener.fit(normal[: min(SCALING_IMAGES, bound)], weights)
    return screener
