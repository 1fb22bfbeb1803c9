"""Base of trained denoisers: EDM's preconditioning, embedding of the noise level, initial weights and state."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from shared.diffusion.precision import network_precision
from shared.diffusion.schedules import per_item

WEIGHTS = "weights."
MIN_SIGMA = 1e-10  # keeps the logarithm finite


class SigmaEmbedding(nn.Module):
    """Sines and cosines of log sigma at octaves of frequency: (batch, 1) -> (batch, 2 * octaves)."""

    frequencies: Tensor

    def __init__(self, octaves: int = 16):
        super().__init__()
        frequencies = 2.0 ** torch.linspace(-2.0, 3.0, octaves)
        self.register_buffer("frequencies", frequencies, persistent=False)

    @property
    def width(self) -> int:
        """Number of values that embed one level."""
        return 2 * len(self.frequencies)

    def forward(self, sigma: Tensor) -> Tensor:
        """Embed noise levels (batch, 1)."""
        angle = torch.log(sigma.clamp(min=MIN_SIGMA)) * self.frequencies
        return torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)


class PreconditionedDenoiser(nn.Module, ABC):
    """Denoiser D(x, sigma) = c_skip x + c_out F(c_in x, sigma) with EDM's preconditioning (table 1, right column).

    A subclass defines only the network F. It gets inputs of unit variance at every noise level, and predicts the sample
    at high noise and the noise at low noise. A subclass MUST take its channels first and the sizes named in
    SIZES as keywords, and MUST end its network in `output`, whose last layer has weights.
    """

    SIZES: ClassVar[tuple[str, ...]]
    output: nn.Sequential

    def __init__(self, channels: int, *, sigma_data: float = 1.0, **sizes: int):
        super().__init__()
        self.channels, self.sizes, self.sigma_data = channels, sizes, sigma_data
        self.embedding = SigmaEmbedding()
        self._compiled: Callable[[Tensor, Tensor], Tensor] | None = None

    @abstractmethod
    def network(self, scaled: Tensor, embedding: Tensor) -> Tensor:
        """Return F, shaped like `scaled` (batch, ...), for the embedded noise levels (batch, embedding)."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x0 | x], shaped like `x` (batch, ...), for `sigma` (batch, 1) or (batch, 1, ..., 1)."""
        level = per_item(sigma, x)
        total = (level**2 + self.sigma_data**2).sqrt()
        c_skip, c_out, c_in = self.sigma_data**2 / total**2, level * self.sigma_data / total, 1.0 / total
        network = self._compiled or self.network
        with network_precision(x.device):
            predicted = network(c_in * x, self.embedding(level.reshape(-1, 1)))
        return c_skip * x + c_out * predicted.to(x.dtype)

    @property
    def is_compiled(self) -> bool:
        """Whether the network runs compiled."""
        return self._compiled is not None

    def compile_network(self) -> None:
        """Run the network compiled from now on, for batches of any size; the first call compiles it."""
        self._compiled = torch.compile(self.network, dynamic=True)

    def loss_weight(self, level: Tensor) -> Tensor:
        """Return the weight of square errors that gives F's target unit variance at every level (EDM, table 1)."""
        return (level**2 + self.sigma_data**2) / (level * self.sigma_data) ** 2

    @classmethod
    def initialised(cls, channels: int, *, sigma_data: float, generator: torch.Generator, **sizes: int) -> Self:
        """Return a new denoiser with initial weights from `generator`; before training it returns c_skip x."""
        denoiser = cls(channels, sigma_data=sigma_data, **sizes)
        initialise(denoiser, generator)
        for weight in denoiser.output[-1].parameters():  # the bias is zero already
            nn.init.zeros_(weight)
        return denoiser

    def to_state(self) -> dict[str, Tensor]:
        """Return the state as tensors, for `from_state`."""
        shape = torch.tensor([self.channels, *self.sizes.values()], dtype=torch.int64)
        data = torch.tensor([self.sigma_data], dtype=torch.float64)
        weights = {f"{WEIGHTS}{name}": value.detach().cpu() for name, value in self.state_dict().items()}
        return {"shape": shape, "sigma_data": data, **weights}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the denoiser that `to_state` described. Raises KeyError, ValueError or RuntimeError for others."""
        channels, *sizes = (int(value) for value in state["shape"])
        if len(sizes) != len(cls.SIZES):
            raise ValueError(f"Not the state of a {cls.__name__}: it has {len(sizes) + 1} sizes.")
        named = dict(zip(cls.SIZES, sizes, strict=True))
        denoiser = cls(channels, sigma_data=float(state["sigma_data"][0]), **named)
        denoiser.load_state_dict(
            {name.removeprefix(WEIGHTS): value for name, value in state.items() if name.startswith(WEIGHTS)}
        )
        return denoiser.eval()


class ChannelNorm(nn.Module):
    """Normalisation to unit root mean square over the channels at every position of (batch, channels, ...).

    It bounds a network's output for inputs far from the data. Statistics are those of one position, so an outlier does
    not affect others (Karras et al., ICLR 2018, section 4.2; with a gain as in RMSNorm).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise each position."""
        size = (hidden.square().mean(dim=1, keepdim=True) + 1e-5).rsqrt()
        return hidden * size * self.gain.reshape(-1, *[1] * (hidden.ndim - 2))


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Initialise linear and convolution layers from `generator`, uniform within 1 / sqrt(inputs); zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            bound = 1.0 / math.sqrt(max(layer.weight[0].numel(), 1))
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
