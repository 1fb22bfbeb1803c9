"""Denoiser of vectors (batch, dim): a residual MLP."""

from typing import ClassVar

from torch import Tensor, nn

from shared.diffusion.denoisers.preconditioning import PreconditionedDenoiser


class ResidualBlock(nn.Module):
    """Residual block h + W2 silu(W1 norm(h) + E embedding); the norm bounds it for inputs far from the data."""

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.embed = nn.Linear(embedding, width)
        self.second = nn.Linear(width, width)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """Apply one residual step."""
        update: Tensor = self.second(nn.functional.silu(self.first(self.norm(hidden)) + self.embed(embedding)))
        return hidden + update


class VectorDenoiser(PreconditionedDenoiser):
    """Residual MLP for vectors (batch, dim)."""

    SIZES: ClassVar[tuple[str, ...]] = ("width", "blocks")

    def __init__(self, dim: int, *, width: int = 256, blocks: int = 3, sigma_data: float = 1.0):
        super().__init__(dim, sigma_data=sigma_data, width=width, blocks=blocks)
        self.dim = dim
        self.input = nn.Linear(dim, width)
        self.body = nn.ModuleList(ResidualBlock(width, self.embedding.width) for _ in range(blocks))
        self.output = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, dim))

    def network(self, scaled: Tensor, embedding: Tensor) -> Tensor:
        """Return F (batch, dim) for `scaled` (batch, dim) and the embedded noise levels."""
        hidden = self.input(scaled)
        for block in self.body:
            hidden = block(hidden, embedding)
        predicted: Tensor = self.output(hidden)
        return predicted
