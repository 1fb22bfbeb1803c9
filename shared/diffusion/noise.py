"""Seeded noise: a sample meets the same noise in whatever batch it comes, on whatever device.

Noise drawn for a batch as a whole ties an item's score to its place in the batch. Here it is a function of a seed and
the item's shape: the same draw for every item (an integer), or a draw of its own for each (a seed an item).
"""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NoiseSource = Callable[[int], Tensor]


def noise_like(x: Tensor, seed: int | Sequence[int], step: int = 0) -> Tensor:
    """Standard normal noise for the items of `x` (batch, ...), of its device and floating type.

    `seed`: an integer gives (1, ...), one draw that all items share; a sequence of one integer an item gives
    (batch, ...). Other seeds and other steps give independent draws. Raises ValueError for a wrong number of seeds.
    """
    if isinstance(seed, int):
        return _draw(x, seed, step).unsqueeze(0)
    if len(seed) != len(x):
        raise ValueError(f"{len(seed)} seeds for {len(x)} items: give one integer, or one seed an item.")
    return torch.stack([_draw(x, own, step) for own in seed]) if len(seed) else torch.empty_like(x)


def seeded_noise(x: Tensor, seed: int | Sequence[int]) -> NoiseSource:
    """The noise source of a sampler: step -> `noise_like(x, seed, step)`."""
    return lambda step: noise_like(x, seed, step)


def _draw(x: Tensor, seed: int, step: int) -> Tensor:
    """Noise of one item's shape, drawn on the CPU in float32: devices and types draw differently."""
    digest = hashlib.sha256(f"{seed}/{step}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(x.shape[1:], generator=generator).to(x)
