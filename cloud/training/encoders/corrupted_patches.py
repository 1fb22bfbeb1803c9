"""Encoded patches of corrupted training images: what heads and analyzers of images learn from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.methods.encoders.efficientnet import DEEP_STRIDE, REACH_PIXELS
from cloud.methods.encoders.image import FINE_DETAILS, PATCH_PIXELS, ImageEncoder
from cloud.methods.pooling import TILE_SIDE
from cloud.training.encoders.corruption import corrupt
from shared.diffusion.local_corruption import CorruptedPatches
from shared.diffusion.training import Progress

CHANGED_LEVELS = 12.0  # grey levels: what differs less is taken as not changed
TOUCHED_SHARE = 0.1  # of a patch's pixels; patches changed less, but changed, count as neither
MAX_PIXELS = 80e6  # of all corrupted copies together, without margins, and half of it of plain images: bounds the time
COPIES = 12  # of each image, where MAX_PIXELS allows
MARGIN_PIXELS = math.ceil(REACH_PIXELS / DEEP_STRIDE) * DEEP_STRIDE  # around a crop's patches that are kept
MOST_PIXELS_A_SIDE = TILE_SIDE * PATCH_PIXELS + 2 * MARGIN_PIXELS  # what is larger is cropped
MAX_TOUCHED, MAX_UNTOUCHED = 150_000, 300_000  # patches that are kept: bounds memory
_BATCH = 4


def corrupted_patches(
    encoder: ImageEncoder,
    images: NDArray[np.uint8],
    *,
    seed: int,
    most_pixels: float = MAX_PIXELS,
    progress: Progress | None = None,
) -> CorruptedPatches:
    """Patches of corrupted copies of normal images (n, height, width, 3), and of the images as they are.

    Of large images a crop at a time is corrupted and encoded, since a copy of all of it would cost much and teach
    little more. Patches near the crop's edge, which the encoder's padding there reaches, are left out.
    """
    generator = np.random.default_rng(seed)
    sides = [min(side, MOST_PIXELS_A_SIDE) for side in images.shape[1:3]]
    encoder = encoder.resized(*sides)
    area, tile = math.prod(images.shape[1:3]), (TILE_SIDE * PATCH_PIXELS) ** 2
    most = max(1, int(most_pixels / min(area, tile)))
    count = min(COPIES * len(images) * math.ceil(area / tile), most)
    order = np.concatenate([generator.permutation(len(images)) for _ in range(math.ceil(count / len(images)))])[:count]
    plain = generator.permutation(len(images))[: max(1, most // 2)]
    total = count + len(plain)
    quotas = (math.ceil(MAX_TOUCHED / count), math.ceil(MAX_UNTOUCHED / total))
    touched: list[Tensor] = []
    untouched: list[Tensor] = []
    for start in range(0, total, _BATCH):
        chosen = order[start : start + _BATCH] if start < count else plain[start - count : start - count + _BATCH]
        crop = _Crop.drawn(images.shape[1:3], sides, generator)
        batch, shares = images[chosen][:, *crop.pixels], torch.zeros(len(chosen), *encoder.grid)
        if start < count:
            others = images[generator.integers(len(images), size=len(chosen))][:, *crop.pixels]
            pairs = [
                corrupt(image, other, generator, bilevel=encoder.bilevel)
                for image, other in zip(batch, others, strict=True)
            ]
            batch, shares = np.stack([copy for copy, _ in pairs]), torch.stack([_shares(change) for _, change in pairs])
        kept = crop.kept(encoder.grid)
        encoded, shares = encoder.views(np.ascontiguousarray(batch)).details[:, kept], shares.flatten(1)[:, kept]
        for details, of_patches in zip(encoded.cpu().half(), shares, strict=True):
            touched.append(_some(details[of_patches > TOUCHED_SHARE], quotas[0], generator))
            untouched.append(_some(details[of_patches == 0], quotas[1], generator))
        if progress is not None:
            progress(min(start + _BATCH, total) / total)
    return CorruptedPatches(torch.cat(touched), torch.cat(untouched), FINE_DETAILS)


@dataclass(frozen=True)
class _Crop:
    """Where in images of `whole` pixels a side the pixels of a crop lie."""

    pixels: tuple[slice, slice]
    whole: tuple[int, int]

    @classmethod
    def drawn(cls, whole: tuple[int, ...], sides: Sequence[int], generator: np.random.Generator) -> Self:
        """One at random, as often at an edge of the image as its share of patches there asks for."""
        height, width = (_start(length, side, generator) for length, side in zip(whole, sides, strict=True))
        return cls((slice(height, height + sides[0]), slice(width, width + sides[1])), (whole[0], whole[1]))

    def kept(self, grid: tuple[int, int]) -> Tensor:
        """(rows * columns,) bool of the crop's patches: whether what lies outside the crop has no part in them."""
        inside = torch.ones(grid, dtype=torch.bool)
        margin = MARGIN_PIXELS // PATCH_PIXELS
        for dimension, (part, length) in enumerate(zip(self.pixels, self.whole, strict=True)):
            along = inside.transpose(0, dimension)
            if part.start > 0:
                along[:margin] = False
            if part.stop < length:
                along[-margin:] = False
        return inside.flatten()


def _start(length: int, side: int, generator: np.random.Generator) -> int:
    """A place for a crop of `side` pixels, at which the encoder's grid is that of the whole image."""
    if side >= length:
        return 0
    steps = (length - side) // DEEP_STRIDE
    margin = MARGIN_PIXELS // DEEP_STRIDE
    return int(np.clip(generator.integers(-margin, steps + margin + 1), 0, steps)) * DEEP_STRIDE


def _some(patches: Tensor, most: int, generator: np.random.Generator) -> Tensor:
    """At most so many of the patches (n, dim), at random."""
    if len(patches) <= most:
        return patches
    return patches[torch.from_numpy(generator.choice(len(patches), most, replace=False))]


def _shares(change: NDArray[Any]) -> Tensor:
    """(rows, columns) the share of each patch's pixels that changed, of differences (height, width)."""
    rows, columns = (side // PATCH_PIXELS for side in change.shape)
    cells = (change > CHANGED_LEVELS).reshape(rows, PATCH_PIXELS, columns, PATCH_PIXELS)
    return torch.from_numpy(cells.mean(axis=(1, 3), dtype=np.float32))
