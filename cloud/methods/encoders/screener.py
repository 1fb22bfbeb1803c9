"""The whole screener as one module: what is exported, quantised and run on devices."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cloud.methods.encoders.image import ImageEncoder
from cloud.methods.pooling import PlaceScale, image_scores, peak_scores
from shared.diffusion import TimeEstimationHead
from shared.diffusion.local_corruption import CorruptionHead

LEAST_LIMIT = 6.0  # of graph inputs, about 8 deviations before compression
SLOPE_BEYOND = 0.1  # of scores in the log of the distance from the box: docs/methods/screener.md


class VectorScreener(nn.Module):
    """Graph inputs (batch, dim) float32 of tabular rows or series windows to scores (batch,).

    In eight bits a head saturates where its activations leave the range of the inputs that set it, and whatever lies
    farther out looks alike. So beyond the box |x_j| <= `limits`_j, and in float, the score grows with the log of the
    distance from the box, as time estimation's does (see `log_posterior_mean`), SLOPE_BEYOND times as fast: a head goes
    on growing there by itself as long as it can. Nothing is added within the box.
    """

    output_names = ("score",)
    limits: Tensor

    def __init__(self, head: TimeEstimationHead, limits: Tensor) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("limits", limits)
        self.eval().requires_grad_(False)

    @classmethod
    def within(cls, head: TimeEstimationHead, *inputs: NDArray[Any]) -> Self:
        """The screener whose box holds the graph inputs (n, dim) given, and LEAST_LIMIT."""
        widest = np.max([np.abs(part).max(axis=0, initial=LEAST_LIMIT) for part in inputs], axis=0)
        return cls(head, torch.from_numpy(widest.astype(np.float32)))

    def forward(self, input: Tensor) -> Tensor:
        """Scores (batch,) of graph inputs (batch, dim)."""
        scores: Tensor = self.head(input) + SLOPE_BEYOND * self.beyond(input)
        return scores

    def beyond(self, input: Tensor) -> Tensor:
        """About the log of the distance (batch,) of graph inputs (batch, dim) from the box; 0 within it."""
        excess = torch.relu(input.abs() - self.limits)
        return 0.5 * torch.log1p(excess.square().sum(dim=1))

    def example(self) -> Tensor:
        """Two graph inputs, for the export."""
        return torch.zeros(2, self.head.dim)


EQUAL_WEIGHTS = (0.5, 0.5)


class ImageScreener(nn.Module):
    """Images (batch, height, width, 3) uint8 to scores (batch,) and anomaly maps (batch, rows, columns).

    Two opinions: the distilled head, a patch at a time, says how far from all normal ones it lies, and the corruption
    head, where there is one, whether a place looks taken away from normal. Each is brought to the scale of normal
    images, the first at each place by itself, and the image's scores are averaged with the weights of the fusion.
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
        # Mean and deviation of the distilled head at each place; then of each opinion's image scores, and its weight.
        self.register_buffer("places", torch.stack([torch.zeros(encoder.grid), torch.ones(encoder.grid)]))
        count = 1 if corruption is None else 2
        weights = torch.full((count,), 1.0 / count)
        self.register_buffer("opinions", torch.stack([torch.zeros(count), torch.ones(count), weights]))
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def fit(self, normal: NDArray[Any], weights: Sequence[float] = EQUAL_WEIGHTS) -> None:
        """Set the scales from normal images (n, height, width, 3) uint8, and what each opinion counts."""
        maps = [self._maps(torch.from_numpy(normal[index : index + 1])) for index in range(len(normal))]
        first, *rest = (torch.cat(of_one) for of_one in zip(*maps, strict=True))
        scale = PlaceScale.fit(first.flatten(1))
        self.places = torch.stack([scale.mean, scale.deviation]).reshape(2, *self.encoder.grid).clone()
        scores = torch.stack(_scores(self._placed(first, *rest)))
        deviations = scores.std(dim=1, correction=0).clamp(min=1e-3)
        shares = torch.tensor(weights[: len(scores)])
        self.opinions = torch.stack([scores.mean(dim=1), deviations, shares / shares.sum()]).clone()

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (batch,), and the patch scores they are made of (batch, rows, columns): weighted means of opinions."""
        maps = self._placed(*self._maps(input))
        scores, anomaly_map = [], []
        for index, (of_one, score) in enumerate(zip(maps, _scores(maps), strict=True)):
            mean, deviation, weight = self.opinions[:, index]
            scores.append((score - mean) * (weight / deviation))
            anomaly_map.append((of_one - mean) * (weight / deviation))
        return _sum(scores), _sum(anomaly_map)

    def example(self) -> Tensor:
        """Two images, for the export."""
        return torch.zeros(2, self.encoder.height, self.encoder.width, 3, dtype=torch.uint8)

    def _maps(self, input: Tensor) -> tuple[Tensor, ...]:
        views = self.encoder(input)
        distilled = self.patch_head(views.vectors).squeeze(1)
        return (distilled,) if self.corruption is None else (distilled, self.corruption(views.details))

    def _placed(self, distilled: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        return (distilled - self.places[0]) / self.places[1], *others


def _scores(maps: Sequence[Tensor]) -> list[Tensor]:
    """(batch,) of each map (batch, rows, columns): of the distilled head's, and of the corruption head's."""
    pooled = (image_scores, peak_scores)
    return [pool(of_one) for pool, of_one in zip(pooled, maps, strict=False)]


def as_convolution(layer: nn.Module) -> nn.Module:
    """The same layer for channels-first maps: a 1 x 1 convolution for a linear one, which engines run in INT8."""
    if not isinstance(layer, nn.Linear):
        return layer
    convolution = nn.Conv2d(layer.in_features, layer.out_features, 1)
    convolution.load_state_dict({"weight": layer.weight[:, :, None, None], "bias": layer.bias})
    return convolution


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
