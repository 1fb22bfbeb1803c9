"""Denoiser of vectors (batch, dim) or groups of vectors (batch, vectors, dim): a residual MLP."""

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
        """Apply one residual step to `hidden` (batch, ..., width), given `embedding` (batch, embedding)."""
        level = self.embed(embedding)
        update = self.first(self.norm(hidden)).add_(level.reshape(len(level), *[1] * (hidden.ndim - 2), -1))
        stepped: Tensor = hidden + self.second(nn.functional.silu(update))
        return stepped


class VectorDenoiser(PreconditionedDenoiser):
    """Residual MLP for vectors (batch, dim), or groups (batch, vectors, dim) with one noise level each."""

    SIZES: ClassVar[tuple[str, ...]] = ("width", "blocks")

    def __init__(self, dim: int, *, width: int = 256, blocks: int = 3, sigma_data: float = 1.0):
        super().__init__(dim, sigma_data=sigma_data, width=width, blocks=blocks)
        self.dim = dim
        self.input = nn.Linear(dim, width)
        self.body = nn.ModuleList(ResidualBlock(width, self.embedding.width) for _ in range(blocks))
        self.output = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, dim))

    def network(self, scaled: Tensor, embedding: Tensor) -> Tensor:
        """Return F, shaped like `scaled` (batch, ..., dim), for the embedded noise levels (batch, embedding)."""
        hidden = self.input(scaled)
        for block in self.body:
            hidden = block(hidden, embedding)
        predicted: Tensor = self.output(hidden)
        return predicted
