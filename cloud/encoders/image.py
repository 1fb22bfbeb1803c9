"""The image encoder: frozen features of four levels, smoothed over their neighbourhood, whitened on normal images.

One vector a patch of eight by eight pixels. Smoothing over 3 x 3 patches is from PatchCore (Roth et al., "Towards Total
Recall in Industrial Anomaly Detection", CVPR 2022, eq. 2).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional as F

from cloud.encoders.efficientnet import DEEP_STRIDE, LEVEL_CHANNELS, Backbone, pretrained_backbone
from shared.bundle import Bundle
from shared.errors import BundleError, DataError
from shared.samples import Modality

ENCODER_FILE = "cloud/encoder.safetensors"
PATCH_PIXELS = DEEP_STRIDE // 2
DEFAULT_DIM = sum(LEVEL_CHANNELS)  # all: directions that normal images hardly use are where defects show
MAX_WHITENING_PATCHES = 100_000
WHITENING_FLOOR = 1e-4  # of the largest variance; chosen on synthetic defects in held-out normal images
_FEATURES = sum(LEVEL_CHANNELS)
_BATCH = 16


class ImageEncoder(nn.Module):
    """Images of one size to whitened patch vectors; frozen."""

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
        """(n, 256, rows, columns) smoothed features, not yet whitened, of pixels (n, 3, height, width) in 0..255."""
        fine, middle, *coarse = (_smooth(level) for level in self.backbone.levels(pixels))
        doubled = [F.interpolate(level, scale_factor=2.0, mode="bilinear", align_corners=False) for level in coarse]
        return torch.cat([F.avg_pool2d(fine, 2), middle, *doubled], dim=1)

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
        size = torch.tensor([self.height, self.width, self.dim])
        return {"size": size, **{name: tensor.contiguous() for name, tensor in self.state_dict().items()}}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The encoder that `state` described; raises BundleError if it did not."""
        tensors = dict(state)
        try:
            height, width, dim = (int(value) for value in tensors.pop("size"))
            encoder = cls(height, width, dim)
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


def encoder_bytes(encoder: ImageEncoder) -> bytes:
    """The encoder as a safetensors file."""
    data: bytes = save_tensors({name: tensor.cpu() for name, tensor in encoder.state().items()})
    return data


def load_encoder(bundle: Bundle, device: str = "cpu") -> ImageEncoder | None:
    """The image encoder of a bundle on `device`; None for a modality that has none."""
    if bundle.manifest.modality is not Modality.IMAGE:
        return None
    try:
        state = load_tensors(bundle.read(ENCODER_FILE))
    except ValueError as error:
        raise BundleError(f"Bundle {bundle.manifest.bundle_id}: {ENCODER_FILE} is damaged: {error}.") from None
    return ImageEncoder.from_state(state).to(device)


def _smooth(features: Tensor) -> Tensor:
    return F.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)


def _as_pixels(images: NDArray[Any], device: torch.device | str) -> Tensor:
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
