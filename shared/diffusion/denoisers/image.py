"""Denoiser of pixel crops and patch grids (batch, channels, height, width): a U-Net with attention.

Source: Ronneberger, Fischer & Brox, "U-Net" (MICCAI 2015), as DDPM uses it (Ho et al., NeurIPS 2020, appendix B):
residual blocks conditioned on the noise level, and self-attention at the coarsest grid.
"""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from shared.diffusion.denoisers.preconditioning import ChannelNorm, PreconditionedDenoiser

HEAD_CHANNELS = 32  # of one attention head


class ImageBlock(nn.Module):
    """Residual block S h + W2 * silu(W1 * silu(norm(h)) + E embedding); S is the identity for equal widths."""

    def __init__(self, inputs: int, outputs: int, embedding: int):
        super().__init__()
        self.norm = ChannelNorm(inputs)
        self.first = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        self.embed = nn.Linear(embedding, outputs)
        self.second = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, kernel_size=1)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """Apply one residual step: (batch, outputs, height, width)."""
        level = self.embed(embedding)[:, :, None, None]
        update = self.first(nn.functional.silu(self.norm(hidden))) + level
        stepped: Tensor = self.skip(hidden) + self.second(nn.functional.silu(update))
        return stepped


class SelfAttention(nn.Module):
    """Residual attention of each position to all (Vaswani et al., NeurIPS 2017); memory grows with their number."""

    def __init__(self, channels: int):
        super().__init__()
        self.heads = max(channels // HEAD_CHANNELS, 1)
        self.norm = ChannelNorm(channels)
        self.queries_keys_values = nn.Conv2d(channels, 3 * channels, kernel_size=1)
        self.output = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Apply one residual step."""
        joined: Tensor = self.queries_keys_values(self.norm(hidden))
        # (batch, 3 * channels, height, width) to three of (batch, heads, positions, head channels)
        split = joined.reshape(len(joined), 3, self.heads, -1, joined.shape[2] * joined.shape[3])
        query, key, value = split.transpose(-1, -2).unbind(1)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        update: Tensor = self.output(mixed.transpose(-1, -2).flatten(1, 2).reshape(hidden.shape))
        return hidden + update


class ImageDenoiser(PreconditionedDenoiser):
    """U-Net for images (batch, channels, height, width) of any size.

    A size that is not a multiple of 2^(levels - 1) is padded with its edge and cropped again. Each level has half the
    resolution and twice the width of the previous one.
    """

    SIZES: ClassVar[tuple[str, ...]] = ("width", "levels")

    def __init__(self, channels: int, *, width: int = 32, levels: int = 3, sigma_data: float = 1.0):
        super().__init__(channels, sigma_data=sigma_data, width=width, levels=levels)
        embedded = self.embedding.width
        widths = [width * 2**level for level in range(levels)]
        pairs = list(pairwise(widths))
        self.input = nn.Conv2d(channels, width, kernel_size=3, padding=1)
        self.down = nn.ModuleList(ImageBlock(max(fine // 2, width), fine, embedded) for fine in widths[:-1])
        self.enter = ImageBlock(widths[max(levels - 2, 0)], widths[-1], embedded)
        self.attention = SelfAttention(widths[-1])
        self.leave = ImageBlock(widths[-1], widths[-1], embedded)
        self.up = nn.ModuleList(ImageBlock(coarse + fine, fine, embedded) for fine, coarse in reversed(pairs))
        last = nn.Conv2d(width, channels, kernel_size=3, padding=1)
        self.output = nn.Sequential(ChannelNorm(width), nn.SiLU(), last)

    def network(self, scaled: Tensor, embedding: Tensor) -> Tensor:
        """Return F (batch, channels, height, width) for `scaled` of that shape and the embedded noise levels."""
        height, width = scaled.shape[2:]
        multiple = 2 ** len(self.down)
        padding = (0, -width % multiple, 0, -height % multiple)
        hidden = self.input(nn.functional.pad(scaled, padding, mode="replicate"))
        # 1. Down, keeping the input of each level.
        kept = []
        for block in self.down:
            hidden = block(hidden, embedding)
            kept.append(hidden)
            hidden = nn.functional.avg_pool2d(hidden, 2)
        # 2. Attention over the whole image at the coarsest level.
        hidden = self.leave(self.attention(self.enter(hidden, embedding)), embedding)
        # 3. Up, with skip connections.
        for block, skipped in zip(self.up, reversed(kept), strict=True):
            hidden = nn.functional.interpolate(hidden, scale_factor=2.0, mode="nearest")
            hidden = block(torch.cat([hidden, skipped], dim=1), embedding)
        predicted: Tensor = self.output(hidden)
        return predicted[:, :, :height, :width]
