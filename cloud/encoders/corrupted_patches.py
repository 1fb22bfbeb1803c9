"""Encoded patches of corrupted training images: what heads and analyzers of images learn from."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.encoders.corruption import corrupt
from cloud.encoders.image import PATCH_PIXELS, ImageEncoder
from shared.diffusion.local_corruption import CorruptedPatches

CHANGED_LEVELS = 12.0  # grey levels: what differs less is taken as not changed
TOUCHED_SHARE = 0.1  # of a patch's pixels; patches changed less, but changed, count as neither
MAX_PIXELS = 80e6  # of all corrupted copies together, and half of it of plain images: bounds the time
COPIES = 12  # of each image, where MAX_PIXELS allows
MAX_TOUCHED, MAX_UNTOUCHED = 150_000, 300_000  # patches that are kept: bounds memory
_BATCH = 4


def corrupted_patches(
    encoder: ImageEncoder,
    images: NDArray[np.uint8],
    *,
    seed: int,
    progress: Callable[[float], None] | None = None,
) -> CorruptedPatches:
    """Patches of corrupted copies of normal images (n, height, width, 3), and of the images as they are.

    Whole images are encoded, never crops: the encoder's padding at a crop's edge would tell the copies from the
    originals.
    """
    generator = np.random.default_rng(seed)
    most = max(1, int(MAX_PIXELS / math.prod(images.shape[1:3])))
    count = min(COPIES * len(images), most)
    order = np.concatenate([generator.permutation(len(images)) for _ in range(math.ceil(count / len(images)))])[:count]
    plain = generator.permutation(len(images))[: max(1, most // 2)]
    total = count + len(plain)
    quotas = (math.ceil(MAX_TOUCHED / count), math.ceil(MAX_UNTOUCHED / total))
    touched: list[Tensor] = []
    untouched: list[Tensor] = []
    for start in range(0, total, _BATCH):
        chosen = order[start : start + _BATCH] if start < count else plain[start - count : start - count + _BATCH]
        batch, shares = images[chosen], torch.zeros(len(chosen), *encoder.grid)
        if start < count:
            others = images[generator.integers(len(images), size=len(chosen))]
            pairs = [
                corrupt(image, other, generator, bilevel=encoder.bilevel)
                for image, other in zip(batch, others, strict=True)
            ]
            batch, shares = np.stack([copy for copy, _ in pairs]), torch.stack([_shares(change) for _, change in pairs])
        for details, of_patches in zip(encoder.views(batch).details.cpu().half(), shares.flatten(1), strict=True):
            touched.append(_some(details[of_patches > TOUCHED_SHARE], quotas[0], generator))
            untouched.append(_some(details[of_patches == 0], quotas[1], generator))
        if progress is not None:
            progress(min(start + _BATCH, total) / total)
    return CorruptedPatches(torch.cat(touched), torch.cat(untouched))


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
