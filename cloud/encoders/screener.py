"""The whole screener as one module: what is exported, quantised and run on devices."""

import torch
from torch import Tensor, nn

from cloud.encoders.image import ImageEncoder
from shared.diffusion import TimeEstimationHead

TOP_PATCHES = 20  # an image's score is the mean over its most suspicious patches
MAX_TOP_SHARE = 0.1  # of all patches, for small images


class VectorScreener(nn.Module):
    """Graph inputs (batch, dim) float32 of tabular rows or series windows to scores (batch,)."""

    output_names = ("score",)

    def __init__(self, head: TimeEstimationHead) -> None:
        super().__init__()
        self.head = head
        self.eval().requires_grad_(False)

    def forward(self, input: Tensor) -> Tensor:
        """Scores (batch,) of graph inputs (batch, dim)."""
        scores: Tensor = self.head(input)
        return scores

    def example(self) -> Tensor:
        """Two graph inputs, for the export."""
        return torch.zeros(2, self.head.dim)


class ImageScreener(nn.Module):
    """Images (batch, height, width, 3) uint8 to scores (batch,) and anomaly maps (batch, rows, columns)."""

    output_names = ("score", "anomaly_map")

    def __init__(self, encoder: ImageEncoder, head: TimeEstimationHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.patch_head = nn.Sequential(*(as_convolution(layer) for layer in head.layers))
        patches = encoder.grid[0] * encoder.grid[1]
        self._top = max(1, min(TOP_PATCHES, int(patches * MAX_TOP_SHARE)))
        self.eval().requires_grad_(False)

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (batch,) and the patch scores they are made of (batch, rows, columns)."""
        vectors = self.encoder(input)
        anomaly_map = self.patch_head(vectors).squeeze(1)
        return anomaly_map.flatten(1).topk(self._top, dim=1).values.mean(dim=1), anomaly_map

    def example(self) -> Tensor:
        """Two images, for the export."""
        return torch.zeros(2, self.encoder.height, self.encoder.width, 3, dtype=torch.uint8)


def as_convolution(layer: nn.Module) -> nn.Module:
    """The same layer for channels-first maps: a 1 x 1 convolution for a linear one, which engines run in INT8."""
    if not isinstance(layer, nn.Linear):
        return layer
    convolution = nn.Conv2d(layer.in_features, layer.out_features, 1)
    convolution.load_state_dict({"weight": layer.weight[:, :, None, None], "bias": layer.bias})
    return convolution
