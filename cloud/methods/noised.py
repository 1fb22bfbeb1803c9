"""Networks that estimate the noise level of a noised normal vector, for DTE-C and DTE-IG.

Source: Livernoche, Jain, Hezaveh & Ravanbakhsh, "On Diffusion Modeling for Anomaly Detection" (ICLR 2024), section 4.2.
"""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn

from cloud.methods.base import in_blocks
from cloud.methods.features import Features
from shared.diffusion.denoisers import initialise
from shared.diffusion.schedules import diffuse, linear_alpha_bars
from shared.diffusion.training import OptimizerSettings, Progress, train

BLOCK_ROWS = 8192

Schedule = Callable[[Tensor], Tensor]
"""Function from positions in [0, 1), drawn uniformly, to ascending noise levels sigma."""

NoiseLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Loss of the outputs (batch, outputs) of a network, given the drawn positions and noise levels (batch,)."""


def log_uniform(sigma_min: float, sigma_max: float) -> Schedule:
    """Return the schedule of log-uniform noise levels."""
    low, high = math.log(sigma_min), math.log(sigma_max)
    return lambda position: torch.exp(low + (high - low) * position)


def linear(timesteps: int, beta_end: float) -> Schedule:
    """Return the schedule sqrt(1 - alpha_bar) of DDPM's linear betas, with uniform timesteps."""
    sigmas = (1.0 - linear_alpha_bars(timesteps, beta_end=beta_end)).sqrt().float()
    return lambda position: sigmas[(position * timesteps).long()]


class NoiseNetwork(nn.Module):
    """ReLU MLP from vectors (batch, dim) to the parameters (batch, outputs) of their noise level's posterior.

    With `radial`, the inputs are a vector divided by its size sqrt(1 + |x|^2 / dim), and the log of that size. Inputs
    are then bounded at every noise level, and outputs extrapolate in the log of the distance beyond the largest level.
    With `residual`, twice that log, which far from the data is the log variance of the noise, is added to the outputs.
    """

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, ...],
        outputs: int,
        *,
        radial: bool,
        residual: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.dim, self.hidden, self.outputs, self.radial, self.residual = dim, hidden, outputs, radial, residual
        layers: list[nn.Module] = []
        for depth, (inputs, width) in enumerate(pairwise((dim + int(radial), *hidden))):
            layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout if depth > 0 else 0.0)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the parameters of the posterior: (batch, outputs)."""
        size = (1.0 + x.square().mean(dim=1, keepdim=True)).sqrt()
        parameters: Tensor = self.layers(torch.cat([x / size, torch.log(size)], dim=1) if self.radial else x)
        return parameters + 2.0 * torch.log(size) if self.residual else parameters

    @torch.no_grad()
    def parameters_of(self, features: Features) -> Tensor:
        """Return parameters (samples * patches, outputs) of all patches of all samples; missing entries are 0."""
        return in_blocks(self, features.flat_visible, BLOCK_ROWS)

    def to_state(self) -> dict[str, Tensor]:
        """All that `from_state` needs."""
        options = (int(self.radial), int(self.residual))
        shape = torch.tensor([self.dim, self.outputs, *options, *self.hidden], dtype=torch.int64)
        return {"shape": shape, **{f"weights.{name}": value for name, value in self.state_dict().items()}}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the network that `to_state` described, without dropout, which only training needs."""
        dim, outputs, radial, residual, *hidden = (int(value) for value in state["shape"])
        network = cls(dim, tuple(hidden), outputs, radial=bool(radial), residual=bool(residual))
        prefix = "weights."
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        network.load_state_dict(weights)
        return network.eval()


def train_on_noised(
    network: NoiseNetwork,
    features: Features,
    schedule: Schedule,
    loss: NoiseLoss,
    settings: OptimizerSettings,
    *,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> None:
    """Initialise and train `network` in place on x + sigma * noise for normal x and random noise levels.

    Observed entries get isotropic noise; missing entries stay 0.
    """
    normals, observed = features.flat_visible, features.flat_observed
    initialise(network, generator)
    network.to(normals.device)

    def batch_loss() -> Tensor:
        rows = torch.randint(len(normals), (settings.batch_size,), generator=generator).to(normals.device)
        position = torch.rand(settings.batch_size, generator=generator)
        noise = torch.randn((settings.batch_size, normals.shape[1]), generator=generator).to(normals.device)
        if observed is not None:
            noise = torch.where(observed[rows], noise, 0.0)
        sigma = schedule(position).to(normals.device)
        noised = diffuse(normals[rows], sigma.unsqueeze(1), noise)
        return loss(network(noised), position.to(normals.device), sigma)

    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    with torch.random.fork_rng():  # dropout draws from the global generator
        torch.manual_seed(seed)
        train(network, batch_loss, settings, progress=progress)
