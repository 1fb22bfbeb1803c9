"""Encoded copies of training images with corrupted places: what heads and analyzers of images learn from."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.encoders.corruption import corrupt
from cloud.encoders.image import DETAIL_DIM, PATCH_PIXELS, ImageEncoder
from shared.diffusion.local_corruption import CorruptedMaps

CHANGED_LEVELS = 12.0  # grey levels: what differs less is taken as not changed
MAX_PIXELS = 120e6  # of all corrupted copies together, and half of it of plain images: bounds time and memory
COPIES = 3  # of each image, where MAX_PIXELS allows
_BATCH = 4


def corrupted_maps(
    encoder: ImageEncoder,
    images: NDArray[np.uint8],
    *,
    seed: int,
    progress: Callable[[float], None] | None = None,
) -> CorruptedMaps:
    """Encoded corrupted copies of normal images (n, height, width, 3), and the images as they are; in half precision.

    Whole images are encoded, never crops: the encoder's padding at a crop's edge would tell the copies from the
    originals.
    """
    generator = np.random.default_rng(seed)
    most = max(1, int(MAX_PIXELS / math.prod(images.shape[1:3])))
    count = min(COPIES * len(images), most)
    order = np.concatenate([generator.permutation(len(images)) for _ in range(math.ceil(count / len(images)))])[:count]
    plain = generator.permutation(len(images))[: max(1, most // 2)]
    details = torch.empty((count + len(plain), DETAIL_DIM, *encoder.grid), dtype=torch.float16)
    touched = torch.zeros((len(details), *encoder.grid))
    for start in range(0, count, _BATCH):
        batch = order[start : start + _BATCH]
        others = images[generator.integers(len(images), size=len(batch))]
        pairs = [
            corrupt(images[i], other, generator, bilevel=encoder.bilevel)
            for i, other in zip(batch, others, strict=True)
        ]
        here = slice(start, start + len(batch))
        details[here] = _details(encoder, np.stack([copy for copy, _ in pairs]))
        touched[here] = torch.stack([_patch_shares(change) for _, change in pairs])
        if progress is not None:
            progress(min(start + _BATCH, count) / len(details))
    for start in range(0, len(plain), _BATCH):
        batch = plain[start : start + _BATCH]
        details[count + start : count + start + len(batch)] = _details(encoder, images[batch])
    if progress is not None:
        progress(1.0)
    return CorruptedMaps(details, touched)


def _details(encoder: ImageEncoder, images: NDArray[np.uint8]) -> Tensor:
    """(n, DETAIL_DIM, rows, columns) on the CPU."""
    found = encoder.views(images).details.transpose(1, 2).cpu()
    return found.reshape(*found.shape[:2], *encoder.grid)


def _patch_shares(change: NDArray[Any]) -> Tensor:
    """(rows, columns) the share of each patch's pixels that changed, of differences (height, width)."""
    rows, columns = (side // PATCH_PIXELS for side in change.shape)
    cells = (change > CHANGED_LEVELS).reshape(rows, PATCH_PIXELS, columns, PATCH_PIXELS)
    return torch.from_numpy(cells.mean(axis=(1, 3), dtype=np.float32))
