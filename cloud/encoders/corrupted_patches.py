"""Encoded patches of locally corrupted training images: what heads and analyzers of images learn from."""

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
TOUCHED_SHARE = 0.1  # of a patch's pixels; patches changed less, but changed, are left out as neither
MAX_PIXELS = 120e6  # of all corrupted copies together: bounds the time
COPIES = 3  # of each image, where MAX_PIXELS allows
MAX_TOUCHED, MAX_UNTOUCHED = 40_000, 40_000
_BATCH = 4


def corrupted_patches(
    encoder: ImageEncoder,
    images: NDArray[np.uint8],
    *,
    seed: int,
    progress: Callable[[float], None] | None = None,
) -> CorruptedPatches:
    """Encoded patches of corrupted copies of normal images (n, height, width, 3), and of the images as they are.

    Whole images are encoded, never crops: the encoder's padding at a crop's edge would tell the copies from the
    originals. Half of the untouched patches come from the corrupted copies, half from the images.
    """
    generator = np.random.default_rng(seed)
    count = max(1, min(COPIES * len(images), int(MAX_PIXELS / math.prod(images.shape[1:3]))))
    order = np.concatenate([generator.permutation(len(images)) for _ in range(math.ceil(count / len(images)))])[:count]
    bilevel = encoder.bilevel
    quotas = (math.ceil(MAX_TOUCHED / count), math.ceil(MAX_UNTOUCHED / 2 / count))
    touched: list[Tensor] = []
    untouched: list[Tensor] = []
    for start in range(0, count, _BATCH):
        batch = order[start : start + _BATCH]
        others = images[generator.integers(len(images), size=len(batch))]
        pairs = [corrupt(images[i], other, generator, bilevel=bilevel) for i, other in zip(batch, others, strict=True)]
        vectors = encoder.encode(np.stack([copy for copy, _ in pairs])).cpu()
        plain = encoder.encode(images[batch]).cpu()
        for row, (_, change) in enumerate(pairs):
            share = _patch_shares(change)
            touched.append(_some(vectors[row][share > TOUCHED_SHARE], 4 * quotas[0], generator))
            untouched.append(_some(vectors[row][share == 0], quotas[1], generator))
            untouched.append(_some(plain[row], quotas[1], generator))
        if progress is not None:
            progress(min(start + _BATCH, count) / count)
    return CorruptedPatches(_some(torch.cat(touched), MAX_TOUCHED, generator), torch.cat(untouched))


def _patch_shares(change: NDArray[Any]) -> Tensor:
    """(patches,) the share of each patch's pixels that changed, of differences (height, width)."""
    rows, columns = (side // PATCH_PIXELS for side in change.shape)
    cells = (change > CHANGED_LEVELS).reshape(rows, PATCH_PIXELS, columns, PATCH_PIXELS)
    return torch.from_numpy(cells.mean(axis=(1, 3)).reshape(-1))


def _some(vectors: Tensor, most: int, generator: np.random.Generator) -> Tensor:
    if len(vectors) <= most:
        return vectors
    return vectors[torch.from_numpy(generator.permutation(len(vectors))[:most])].clone()
