"""The image encoder: frozen features of two levels, smoothed over their neighbourhood, whitened on normal images.

One vector a patch of eight by eight pixels. Smoothing over 3 x 3 patches is from PatchCore (Roth et al., "Towards Total
Recall in Industrial Anomaly Detection", CVPR 2022, eq. 2).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cloud.encoders.corruption import MIDDLE_LEVEL, WHITE, is_bilevel
from cloud.encoders.efficientnet import (
    DEEP_STRIDE,
    LEVEL_BLOCKS,
    LEVEL_CHANNELS,
    LEVEL_STRIDES,
    Backbone,
    pretrained_backbone,
)
from shared.errors import BundleError, DataError

PATCH_PIXELS = DEEP_STRIDE // 2
USED_BLOCKS = (4, 10)  # of LEVEL_BLOCKS
DEFAULT_DIM = 64
MAX_WHITENING_PATCHES = 100_000
WHITENING_FLOOR = 0.01  # of the largest variance; chosen where the head and its neighbours' distances agree best
_LEVELS = tuple(LEVEL_BLOCKS.index(block) for block in USED_BLOCKS)
_FEATURES = sum(LEVEL_CHANNELS[level] for level in _LEVELS)
_BATCH = 16
_BILEVEL_SAMPLE = 20


class ImageEncoder(nn.Module):
    """Images of one size to whitened patch vectors; frozen.

    Where the normal images are `bilevel` (thresholded scans), every image is thresholded first: what compression leaves
    around their edges is no property of what they show, and would tell corrupted copies from originals.
    """

    def __init__(self, height: int, width: int, dim: int = DEFAULT_DIM, backbone: Backbone | None = None) -> None:
        super().__init__()
        if height % DEEP_STRIDE or width % DEEP_STRIDE or min(height, width) < 2 * DEEP_STRIDE:
            raise DataError(
                f"The image encoder takes sizes that {DEEP_STRIDE} divides, from {2 * DEEP_STRIDE} on, not {height} x "
                f"{width}: change image.height and image.width."
            )
        self.height, self.width, self.dim = height, width, dim
        self.grid = (height * 2 // DEEP_STRIDE, width * 2 // DEEP_STRIDE)
        self.backbone = backbone if backbone is not None else Backbone()
        self.whitening = nn.Conv2d(_FEATURES, dim, 1)
        self.bilevel = False
        self.eval().requires_grad_(False)

    @classmethod
    def fit(
        cls,
        images: NDArray[Any],
        *,
        generator: torch.Generator,
        dim: int = DEFAULT_DIM,
        progress: Callable[[float], None] | None = None,
    ) -> tuple[Self, Tensor]:
        """Pretrained features, whitened on normal images (n, height, width, 3) uint8.

        Also returns the whitened patch vectors (patches, dim) it was fitted on, a random part of each image's.
        Raises DataError for a size that the backbone cannot take, MissingExtraError without its weights.
        """
        encoder = cls(images.shape[1], images.shape[2], dim, pretrained_backbone())
        encoder.bilevel = is_bilevel(images[:_BILEVEL_SAMPLE])
        quota = math.ceil(MAX_WHITENING_PATCHES / len(images))
        kept = []
        for start in range(0, len(images), _BATCH):
            for features in encoder.features(_as_pixels(images[start : start + _BATCH], "cpu")):
                vectors = features.flatten(1).T
                kept.append(vectors[torch.randperm(len(vectors), generator=generator)[:quota]])
            if progress is not None:
                progress(min(start + _BATCH, len(images)) / len(images))
        patches = torch.cat(kept)
        encoder._whiten_by(patches.double())
        weight, bias = encoder.whitening.weight.flatten(1), encoder.whitening.bias
        return encoder, F.linear(patches, weight, bias)

    def features(self, pixels: Tensor) -> Tensor:
        """(n, 152, rows, columns) smoothed features, not yet whitened, of pixels (n, 3, height, width) in 0..255."""
        if self.bilevel:
            pixels = (pixels > MIDDLE_LEVEL).float() * WHITE
        outputs = self.backbone.levels(pixels)
        return torch.cat([_at_patches(_smooth(outputs[level]), LEVEL_STRIDES[level]) for level in _LEVELS], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """(n, dim, rows, columns) whitened patch vectors of images (n, height, width, 3) uint8."""
        result: Tensor = self.whitening(self.features(images.permute(0, 3, 1, 2).float()))
        return result

    @torch.inference_mode()
    def encode(self, images: NDArray[Any], progress: Callable[[float], None] | None = None) -> Tensor:
        """(n, patches, dim) float32 on the encoder's device, of images (n, height, width, 3) uint8."""
        if images.shape[1:] != (self.height, self.width, 3):
            raise DataError(
                f"Images have shape {images.shape[1:]}, and the encoder takes {self.height, self.width, 3}."
            )
        device = self.whitening.weight.device
        parts = [torch.zeros(0, self.grid[0] * self.grid[1], self.dim, device=device)]
        for start in range(0, len(images), _BATCH):
            pixels = _as_pixels(images[start : start + _BATCH], device)
            parts.append(self.whitening(self.features(pixels)).flatten(2).transpose(1, 2))
            if progress is not None:
                progress(min(start + _BATCH, len(images)) / len(images))
        return torch.cat(parts)

    def state(self) -> dict[str, Tensor]:
        """All there is to store."""
        size = torch.tensor([self.height, self.width, self.dim, int(self.bilevel)])
        return {"size": size, **{name: tensor.contiguous() for name, tensor in self.state_dict().items()}}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The encoder that `state` described; raises BundleError if it did not."""
        tensors = dict(state)
        try:
            height, width, dim, *more = (int(value) for value in tensors.pop("size"))
            bilevel = any(more)  # bundles of before have no such flag
            encoder = cls(height, width, dim)
            encoder.bilevel = bilevel
            encoder.load_state_dict(tensors)
        except (KeyError, ValueError, RuntimeError, DataError) as error:
            raise BundleError(f"Not an image encoder's weights: {str(error).splitlines()[0]}") from None
        return encoder

    def _whiten_by(self, patches: Tensor) -> None:
        """Set the whitening from patches (n, features): leading principal components, each to unit variance."""
        mean = patches.mean(dim=0)
        centred = patches - mean
        variances, vectors = torch.linalg.eigh(centred.T @ centred / max(len(patches) - 1, 1))
        variances, vectors = variances.flip(0)[: self.dim], vectors.flip(1)[:, : self.dim]
        # Without a floor a direction that normal images hardly use would drown the others in noise.
        deviations = torch.sqrt(variances.clamp(min=0) + WHITENING_FLOOR * variances[0].clamp(min=1e-6))
        weight = (vectors / deviations).T
        self.whitening.weight.copy_(weight[:, :, None, None].float())
        self.whitening.bias.copy_(-(weight @ mean).float())  # type: ignore[union-attr]


def _smooth(features: Tensor) -> Tensor:
    return F.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)


def _at_patches(features: Tensor, stride: int) -> Tensor:
    """The features of a level at one place a patch."""
    if stride < PATCH_PIXELS:
        return F.avg_pool2d(features, PATCH_PIXELS // stride)
    if stride > PATCH_PIXELS:
        return F.interpolate(features, scale_factor=stride / PATCH_PIXELS, mode="bilinear", align_corners=False)
    return features


def _as_pixels(images: NDArray[Any], device: torch.device | str) -> Tensor:
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
