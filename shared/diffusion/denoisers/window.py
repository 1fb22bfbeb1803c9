"""Denoiser of windows of series (batch, length, channels): dilated convolutions over time.

Source: van den Oord et al., "WaveNet" (2016), and Kong et al., "DiffWave" (ICLR 2021), here without
gates and without the causal mask: later readings also reveal an anomaly.
"""

from typing import ClassVar

from torch import Tensor, nn

from shared.diffusion.denoisers.preconditioning import ChannelNorm, PreconditionedDenoiser


class WindowBlock(nn.Module):
    """Residual block h + W2 silu(W1 * norm(h) + E embedding); W1 reaches `dilation` time points to either side."""

    def __init__(self, width: int, dilation: int, embedding: int):
        super().__init__()
        self.norm = ChannelNorm(width)
        self.first = nn.Conv1d(width, width, kernel_size=3, padding=dilation, dilation=dilation)
        self.embed = nn.Linear(embedding, width)
        self.second = nn.Conv1d(width, width, kernel_size=1)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """Apply one residual step."""
        level = self.embed(embedding).unsqueeze(-1)
        update: Tensor = self.second(nn.functional.silu(self.first(self.norm(hidden)) + level))
        return hidden + update


class WindowDenoiser(PreconditionedDenoiser):
    """Dilated convolutions for windows (batch, length, channels) of any length.

    Dilations double from block to block, so the receptive field is 2^blocks - 1 time points to either side.
    """

    SIZES: ClassVar[tuple[str, ...]] = ("width", "blocks")

    def __init__(self, channels: int, *, width: int = 64, blocks: int = 6, sigma_data: float = 1.0):
        super().__init__(channels, sigma_data=sigma_data, width=width, blocks=blocks)
        self.input = nn.Conv1d(channels, width, kernel_size=3, padding=1)
        self.body = nn.ModuleList(WindowBlock(width, 2**block, self.embedding.width) for block in range(blocks))
        self.output = nn.Sequential(ChannelNorm(width), nn.SiLU(), nn.Conv1d(width, channels, kernel_size=1))

    def network(self, scaled: Tensor, embedding: Tensor) -> Tensor:
        """Return F (batch, length, channels) for `scaled` of that shape and the embedded noise levels."""
        hidden = self.input(scaled.transpose(1, 2))
        for block in self.body:
            hidden = block(hidden, embedding)
        predicted: Tensor = self.output(hidden)
        return predicted.transpose(1, 2)
