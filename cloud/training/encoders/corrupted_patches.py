"""Encoded patches of corrupted training images: training data of heads and analyzers."""

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

CHANGED_LEVELS = 12.0  # grey levels; smaller differences count as unchanged
TOUCHED_SHARE = 0.1  # changed share of a patch's pixels, above which it is touched; between 0 and this it is not used
MAX_PIXELS = 80e6  # in all corrupted copies, without margins; half of it in plain images; bounds the time
COPIES = 12  # per image, if MAX_PIXELS allows
MARGIN_PIXELS = math.ceil(REACH_PIXELS / DEEP_STRIDE) * DEEP_STRIDE  # margin around the kept patches of a crop
MAX_SIDE_PIXELS = TILE_SIDE * PATCH_PIXELS + 2 * MARGIN_PIXELS  # larger images are cropped
MAX_TOUCHED, MAX_UNTOUCHED = 150_000, 300_000  # kept patches; bounds memory
_BATCH = 4


def corrupted_patches(
    encoder: ImageEncoder,
    images: NDArray[np.uint8],
    *,
    seed: int,
    max_pixels: float = MAX_PIXELS,
    progress: Progress | None = None,
) -> CorruptedPatches:
    """Return patches of corrupted copies of normal images (n, height, width, 3), and of the unchanged images.

    Large images are corrupted and encoded one crop at a time, since whole copies cost more and add little. Patches near
    the edge of a crop, which the encoder's padding affects, are omitted.
    """
    generator = np.random.default_rng(seed)
    sides = [min(side, MAX_SIDE_PIXELS) for side in images.shape[1:3]]
    encoder = encoder.resized(*sides)
    area, tile = math.prod(images.shape[1:3]), (TILE_SIDE * PATCH_PIXELS) ** 2
    max_count = max(1, int(max_pixels / min(area, tile)))
    count = min(COPIES * len(images) * math.ceil(area / tile), max_count)
    order = np.concatenate([generator.permutation(len(images)) for _ in range(math.ceil(count / len(images)))])[:count]
    plain = generator.permutation(len(images))[: max(1, max_count // 2)]
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
            touched.append(_subset(details[of_patches > TOUCHED_SHARE], quotas[0], generator))
            untouched.append(_subset(details[of_patches == 0], quotas[1], generator))
        if progress is not None:
            progress(min(start + _BATCH, total) / total)
    return CorruptedPatches(torch.cat(touched), torch.cat(untouched), FINE_DETAILS)


@dataclass(frozen=True)
class _Crop:
    """Crop of an image: row and column `pixels` of an image with `whole` height and width."""

    pixels: tuple[slice, slice]
    whole: tuple[int, int]

    @classmethod
    def drawn(cls, whole: tuple[int, ...], sides: Sequence[int], generator: np.random.Generator) -> Self:
        """Return a random crop, which lies at an image edge as often as the share of edge patches requires."""
        height, width = (_start(length, side, generator) for length, side in zip(whole, sides, strict=True))
        return cls((slice(height, height + sides[0]), slice(width, width + sides[1])), (whole[0], whole[1]))

    def kept(self, grid: tuple[int, int]) -> Tensor:
        """Return which patches (rows * columns,) do not depend on pixels outside the crop."""
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
    """Return a random start for a crop of `side` pixels, aligned with the encoder's grid of the whole image."""
    if side >= length:
        return 0
    steps = (length - side) // DEEP_STRIDE
    margin = MARGIN_PIXELS // DEEP_STRIDE
    return int(np.clip(generator.integers(-margin, steps + margin + 1), 0, steps)) * DEEP_STRIDE


def _subset(patches: Tensor, max_count: int, generator: np.random.Generator) -> Tensor:
    """Return at most `max_count` of the patches (n, dim), drawn at random."""
    if len(patches) <= max_count:
        return patches
    return patches[torch.from_numpy(generator.choice(len(patches), max_count, replace=False))]


def _shares(change: NDArray[Any]) -> Tensor:
    """Return the changed share of each patch's pixels (rows, columns) from differences (height, width)."""
    rows, columns = (side // PATCH_PIXELS for side in change.shape)
    cells = (change > CHANGED_LEVELS).reshape(rows, PATCH_PIXELS, columns, PATCH_PIXELS)
    return torch.from_numpy(cells.mean(axis=(1, 3), dtype=np.float32))
