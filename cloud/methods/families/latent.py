"""Latent reconstruction: partial diffusion of an autoencoder's code instead of the sample.

Source: Rombach, Blattmann, Lorenz, Esser & Ommer, "High-Resolution Image Synthesis with Latent Diffusion Models" (CVPR
2022); for anomaly detection Pinaya et al., "Fast Unsupervised Brain Anomaly Detection and Segmentation with Diffusion
Models" (MICCAI 2022).

With z the standardised code, z^ the restored code, x^ its decoded vector, and e_i^2 the mean square error of coordinate
i on normal data, the score is

    s(x) = log mean over coordinates i of (x, z) of  (x_i - x^_i)^2 / e_i^2   (no unit, 0 for average normal data)

Structure that the code cannot represent shows in the input errors; unusual codes show in the code errors.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from cloud.methods.features import Features
from cloud.methods.fit_context import SIGMA_RANGE, FitContext
from cloud.methods.restoration import (
    DRAWS,
    PATCH_DRAWS,
    Errors,
    Restoration,
    levels_from,
    mean_over,
    opposite_pairs,
    part,
    prefixed,
    short_training,
)
from shared.diffusion.denoisers import VectorDenoiser, initialise
from shared.diffusion.samplers import sample_dpm_solver
from shared.diffusion.schedules import diffuse
from shared.diffusion.training import OptimizerSettings, Progress, train, train_denoiser

KEPT_VARIANCE = 0.9  # share of the variance that sets the code size, by principal components
HIDDEN = 128
DEPTH_SIGMA = 0.25  # in units of the standard deviation of the code
STEPS = 1
SPREAD_FLOOR = 1e-3


class Autoencoder(nn.Module):
    """Autoencoder of vectors (batch, dim) with codes (batch, code).

    Encoder and decoder are each the sum of a linear map and a ReLU network with one hidden layer.
    """

    def __init__(self, dim: int, code: int, hidden: int = HIDDEN):
        super().__init__()
        self.sizes = (dim, code, hidden)
        self.encode_line, self.encode_bend = nn.Linear(dim, code), _relu_network(dim, hidden, code)
        self.decode_line, self.decode_bend = nn.Linear(code, dim), _relu_network(code, hidden, dim)

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes (batch, code) of vectors (batch, dim)."""
        code: Tensor = self.encode_line(x) + self.encode_bend(x)
        return code

    def decode(self, code: Tensor) -> Tensor:
        """Return the vectors (batch, dim) of codes (batch, code)."""
        x: Tensor = self.decode_line(code) + self.decode_bend(code)
        return x

    def to_state(self) -> dict[str, Tensor]:
        """Return the weights and sizes for `from_state`."""
        return {"sizes": torch.tensor(self.sizes), **self.state_dict()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the autoencoder described by `to_state`."""
        autoencoder = cls(*(int(size) for size in state["sizes"]))
        autoencoder.load_state_dict({name: value for name, value in state.items() if name != "sizes"})
        return autoencoder.eval()


class LatentReconstruction(Restoration):
    """Log mean square error of the input and the code after partial diffusion of the code."""

    name: ClassVar[str] = "latent"

    def __init__(self) -> None:
        super().__init__()
        self._networks: tuple[Autoencoder, VectorDenoiser] | None = None
        self._code_scale = torch.empty((0, 0))  # (2, code): mean and standard deviation on normal data
        self._noise = torch.empty((0, 0))  # (draws, code), the same for every sample

    def _learn(self, features: Features, context: FitContext, generator: torch.Generator, progress: Progress) -> None:
        rows, observed = features.flat_visible, features.flat_observed
        settings = short_training(context)
        autoencoder = Autoencoder(rows.shape[1], code_size(rows))
        initialise(autoencoder, generator)
        autoencoder.to(rows.device)
        train_autoencoder(autoencoder, rows, observed, settings, generator, lambda share: progress(0.3 * share))
        with torch.no_grad():
            codes = autoencoder.encode(rows)
        spread = codes.std(dim=0, correction=0).clamp(min=SPREAD_FLOOR)
        self._code_scale = torch.stack([codes.mean(dim=0), spread])
        denoiser = train_denoiser(
            self._scaled(codes),
            SIGMA_RANGE,
            settings,
            generator=generator,
            progress=lambda share: progress(0.3 + 0.7 * share),
        )
        self._networks = (autoencoder, denoiser)
        draws = DRAWS if features.vectors.shape[1] == 1 else PATCH_DRAWS
        self._noise = opposite_pairs(draws, (codes.shape[1],), generator).to(rows.device)

    def _errors(self, features: Features) -> Errors:
        autoencoder, denoiser = self._trained()
        rows, sigmas = features.flat_visible, levels_from(DEPTH_SIGMA, STEPS)
        codes = self._scaled(autoencoder.encode(rows))
        total_code, total = torch.zeros_like(codes), torch.zeros_like(rows)
        for noise in self._noise:
            restored_code = sample_dpm_solver(denoiser, diffuse(codes, DEPTH_SIGMA, noise), sigmas)
            total_code += restored_code
            total += autoencoder.decode(restored_code * self._code_scale[1] + self._code_scale[0])
        code, restored = total_code / len(self._noise), total / len(self._noise)
        squares = torch.cat([rows - restored, codes - code], dim=1).square()
        shape = features.vectors.shape
        observed = None
        if features.observed is not None:  # a code counts as observed if any entry of its vector is
            any_observed = features.observed.any(dim=2, keepdim=True).expand(*shape[:2], codes.shape[1])
            observed = torch.cat([features.observed, any_observed], dim=2)
        return Errors(squares.reshape(*shape[:2], -1), observed, restored.reshape(shape))

    def _scaled(self, codes: Tensor) -> Tensor:
        scaled: Tensor = (codes - self._code_scale[0]) / self._code_scale[1]
        return scaled

    def _learned(self) -> dict[str, Tensor]:
        autoencoder, denoiser = self._trained()
        own = {"code_scale": self._code_scale, "noise": self._noise}
        return {**prefixed("autoencoder", autoencoder.to_state()), **prefixed("denoiser", denoiser.to_state()), **own}

    def _adopt(self, state: Mapping[str, Tensor]) -> None:
        autoencoder = Autoencoder.from_state(part("autoencoder", state))
        self._networks = (autoencoder, VectorDenoiser.from_state(part("denoiser", state)))
        self._code_scale, self._noise = state["code_scale"], state["noise"]

    def _move(self, device: torch.device) -> None:
        for network in self._trained():
            network.to(device)
        self._code_scale, self._noise = self._code_scale.to(device), self._noise.to(device)

    def _trained(self) -> tuple[Autoencoder, VectorDenoiser]:
        if self._networks is None:
            raise RuntimeError("latent is not fitted: call fit() first.")
        return self._networks


def code_size(rows: Tensor) -> int:
    """Return the number of principal components that hold KEPT_VARIANCE of `rows` (n, dim).

    The code has at least 1 value, and fewer than the vector if dim is 2 or more.
    """
    centred = (rows - rows.mean(dim=0)).double()
    variances = torch.linalg.eigvalsh(centred.T @ centred).flip(0).clamp(min=0.0)
    needed = int((variances.cumsum(0) < KEPT_VARIANCE * variances.sum()).sum()) + 1
    return max(1, min(needed, rows.shape[1] - 1))


def train_autoencoder(
    autoencoder: Autoencoder,
    rows: Tensor,
    observed: Tensor | None,
    settings: OptimizerSettings,
    generator: torch.Generator,
    progress: Progress,
) -> None:
    """Train `autoencoder` in place on the square error over the observed entries of `rows` (n, dim)."""

    def batch_loss() -> Tensor:
        picked = torch.randint(len(rows), (settings.batch_size,), generator=generator).to(rows.device)
        x = rows[picked]
        squares = (autoencoder.decode(autoencoder.encode(x)) - x).square()
        return mean_over(squares, None if observed is None else observed[picked])

    train(autoencoder, batch_loss, settings, progress=progress)


def _relu_network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
