"""Image encoder: frozen features of two kinds for patches of 8 x 8 pixels.

- `vectors`: features of two levels, smoothed over their neighbourhood, whitened on normal images, with few dimensions.
  Patches are compared by their distance. Smoothing over 3 x 3 patches is from PatchCore (Roth et al., "Towards Total
  Recall in Industrial Anomaly Detection", CVPR 2022, eq. 2).
- `details`: features of all four levels without smoothing, as inputs of a network. Their fine structure helps a
  network, but is noise in distances.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cloud.methods.encoders.efficientnet import (
    DEEP_STRIDE,
    LEVEL_BLOCKS,
    LEVEL_CHANNELS,
    LEVEL_STRIDES,
    Backbone,
)
from shared.diffusion.training import Progress
from shared.errors import BundleError, DataError

PATCH_PIXELS = DEEP_STRIDE // 2
MIDDLE_LEVEL, WHITE = 127.0, 255.0  # grey levels of the threshold and of white
COMPARED_BLOCKS = (4, 10)  # of LEVEL_BLOCKS
DEFAULT_DIM = 64
_COMPARED_FEATURES = sum(LEVEL_CHANNELS[LEVEL_BLOCKS.index(block)] for block in COMPARED_BLOCKS)
# A level finer than the patches gives each patch the values of all its places.
_LEVEL_DETAILS = tuple(
    channels * max(1, PATCH_PIXELS // stride) ** 2
    for channels, stride in zip(LEVEL_CHANNELS, LEVEL_STRIDES, strict=True)
)
DETAIL_DIM = sum(_LEVEL_DETAILS)
FINE_DETAILS = sum(_LEVEL_DETAILS[:2])  # leading details, of the levels with a small receptive field
_PIXELS_PER_BATCH = 4 * 224 * 224  # larger batches exceed the caches: twice the time per image, measured on one core


class Views(NamedTuple):
    """Patches as `vectors` (..., dim) for distances and `details` (..., DETAIL_DIM) for networks."""

    vectors: Tensor
    details: Tensor


class ImageEncoder(nn.Module):
    """Frozen network from images of one size to patch vectors and details.

    `detail_scale`: mean and deviation of each detail. If the normal images are `bilevel` (thresholded scans), every
    image is thresholded first: compression artefacts around edges are not part of the content, and would distinguish
    corrupted copies from originals.
    """

    detail_scale: Tensor

    def __init__(self, height: int, width: int, dim: int = DEFAULT_DIM, backbone: Backbone | None = None) -> None:
        super().__init__()
        if height % DEEP_STRIDE or width % DEEP_STRIDE or min(height, width) < 2 * DEEP_STRIDE:
            raise DataError(
                f"The image encoder needs multiples of {DEEP_STRIDE} pixels, at least {2 * DEEP_STRIDE}, not "
                f"{height} x {width}: change image.height and image.width."
            )
        self.height, self.width, self.dim = height, width, dim
        self.grid = (height * 2 // DEEP_STRIDE, width * 2 // DEEP_STRIDE)
        self.backbone = backbone if backbone is not None else Backbone()
        self.whitening = nn.Conv2d(_COMPARED_FEATURES, dim, 1)
        self.register_buffer("detail_scale", torch.stack([torch.zeros(DETAIL_DIM), torch.ones(DETAIL_DIM)]))
        self.bilevel = False
        self.eval().requires_grad_(False)

    def resized(self, height: int, width: int) -> "ImageEncoder":
        """Return the encoder for images of another size; both share the weights."""
        other = ImageEncoder(height, width, self.dim, self.backbone)
        other.whitening, other.detail_scale, other.bilevel = self.whitening, self.detail_scale, self.bilevel
        return other

    def levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the backbone for pixels (n, 3, height, width) in 0..255."""
        if self.bilevel:
            pixels = (pixels > MIDDLE_LEVEL).float() * WHITE
        return self.backbone.levels(pixels)

    def details(self, levels: Sequence[Tensor]) -> Tensor:
        """Return details (n, DETAIL_DIM, rows, columns), standardised on normal images.

        Each level is standardised before the levels are joined, because in INT8 they then share one range.
        """
        parts, start = [], 0
        for level, stride, width in zip(levels, LEVEL_STRIDES, _LEVEL_DETAILS, strict=True):
            mean, deviation = self.detail_scale[:, start : start + width, None, None]
            part = F.pixel_unshuffle(level, PATCH_PIXELS // stride) if stride < PATCH_PIXELS else level
            parts.append(_at_patches((part - mean) / deviation, max(stride, PATCH_PIXELS)))
            start += width
        return torch.cat(parts, dim=1)

    def forward(self, images: Tensor) -> Views:
        """Return vectors (n, dim, rows, columns) and details (n, DETAIL_DIM, rows, columns), channels first.

        `images`: (n, height, width, 3) uint8.
        """
        return self._views(images.permute(0, 3, 1, 2).float())

    def encode(self, images: NDArray[Any], progress: Progress | None = None) -> Tensor:
        """Return vectors (n, patches, dim) float32 of images (n, height, width, 3) uint8, on the encoder's device."""
        return self.views(images, progress).vectors

    @torch.inference_mode()
    def views(self, images: NDArray[Any], progress: Progress | None = None) -> Views:
        """Return vectors (n, patches, dim) and details (n, patches, DETAIL_DIM) float32 on the encoder's device.

        Raises DataError for images of another shape than (n, height, width, 3).
        """
        if images.shape[1:] != (self.height, self.width, 3):
            raise DataError(
                f"Images have the shape {images.shape[1:]}, but the encoder needs {self.height, self.width, 3}."
            )
        device, patches = self.whitening.weight.device, self.grid[0] * self.grid[1]
        vectors = [torch.zeros(0, patches, self.dim, device=device)]
        details = [torch.zeros(0, patches, DETAIL_DIM, device=device)]
        for pixels in self.batches(images, device, progress):
            views = self._views(pixels)
            vectors.append(views.vectors.flatten(2).transpose(1, 2))
            details.append(views.details.flatten(2).transpose(1, 2))
        return Views(torch.cat(vectors), torch.cat(details))

    def _views(self, pixels: Tensor) -> Views:
        levels = self.levels(pixels)
        return Views(self.whitening(smoothed(levels)), self.details(levels))

    def batches(self, images: NDArray[Any], device: torch.device | str, progress: Progress | None) -> Iterator[Tensor]:
        """Yield pixels (batch, 3, height, width) float32, in batches that bound memory."""
        size = max(1, _PIXELS_PER_BATCH // (self.height * self.width))
        for start in range(0, len(images), size):
            yield torch.from_numpy(images[start : start + size]).to(device).permute(0, 3, 1, 2).float()
            if progress is not None:
                progress(min(start + size, len(images)) / len(images))

    def state(self) -> dict[str, Tensor]:
        """Return the tensors to store."""
        size = torch.tensor([self.height, self.width, self.dim, int(self.bilevel)])
        return {"size": size, **{name: tensor.contiguous() for name, tensor in self.state_dict().items()}}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the encoder that `state` described. Raises BundleError for other tensors."""
        tensors = dict(state)
        try:
            height, width, dim, bilevel = (int(value) for value in tensors.pop("size"))
            encoder = cls(height, width, dim)
            encoder.bilevel = bool(bilevel)
            encoder.load_state_dict(tensors)
        except (KeyError, ValueError, RuntimeError, DataError) as error:
            raise BundleError(f"Not the weights of an image encoder: {str(error).splitlines()[0]}") from None
        return encoder


def smoothed(levels: Sequence[Tensor]) -> Tensor:
    """Return features (n, 152, rows, columns) of COMPARED_BLOCKS, averaged over 3 x 3 places, before whitening."""
    outputs = zip(LEVEL_BLOCKS, LEVEL_STRIDES, levels, strict=True)
    return torch.cat(
        [
            _at_patches(F.avg_pool2d(level, 3, stride=1, padding=1, count_include_pad=False), stride)
            for block, stride, level in outputs
            if block in COMPARED_BLOCKS
        ],
        dim=1,
    )


def _at_patches(features: Tensor, stride: int) -> Tensor:
    """Return the features of a level no finer than the patches, interpolated to one place per patch."""
    if stride > PATCH_PIXELS:
        return F.interpolate(features, scale_factor=stride / PATCH_PIXELS, mode="bilinear", align_corners=False)
    return features
