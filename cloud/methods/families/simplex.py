"""Simplex reconstruction: partial diffusion with noise that is smooth over the sample.

Source: Wyatt, Leach, Schmon & Willcocks, "AnoDDPM: Anomaly Detection with Denoising Diffusion Probabilistic Models
using Simplex Noise" (CVPR workshops 2022).

White noise covers little of a large anomaly, and the denoiser restores it; noise with long waves covers all of it.
Grids of patches get simplex noise over the grid, windows along time. Rows have no neighbourhood: their noise has the
covariance of the normal rows, which changes related features together. A denoiser is trained for each kind of noise.

With x^ the mean restored sample and e_i^2 the mean square error of value i on normal data, the score is

    s(x) = log mean over i of  (x_i - x^_i)^2 / e_i^2   (no unit, 0 for average normal data)
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from cloud.methods.base import Need
from cloud.methods.canvas import Kind, draw_levels
from cloud.methods.families.simplex_noise import smooth_fields
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from cloud.methods.restoration import (
    DRAWS,
    PATCH_DRAWS,
    Errors,
    Restoration,
    levels_from,
    mean_over,
    part,
    prefixed,
    short_training,
)
from shared.diffusion.denoisers import PreconditionedDenoiser
from shared.diffusion.samplers import sample_dpm_solver
from shared.diffusion.schedules import diffuse
from shared.diffusion.training import Progress, train

DEPTH_SIGMA = 1.0  # in units of the normal spread
STEPS = 3
FIELDS = 512  # number of smooth fields that training draws from
SHRINKAGE = 0.1  # shrinkage of the covariance of normal rows towards independent features


class SimplexReconstruction(Restoration):
    """Log mean square error after partial diffusion with noise that is smooth over the sample."""

    name: ClassVar[str] = "simplex"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.WINDOWS, Need.PATCH_GRID})

    def __init__(self) -> None:
        super().__init__()
        self._kind = Kind.ROWS
        self._denoiser: PreconditionedDenoiser | None = None
        self._seed = 0  # of the noise draws, which are the same for every sample
        self._mixing = torch.empty((0, 0))  # (dim, dim), rows only: gives white noise the covariance of normal rows

    def _learn(self, features: Features, context: FitContext, generator: torch.Generator, progress: Progress) -> None:
        self._kind = Kind.of(features)
        self._seed = int(torch.randint(2**31, (1,), generator=generator))
        values, observed = self._kind.values(features), self._kind.observed(features)
        if self._kind is Kind.ROWS:
            self._mixing = covariance_root(values)
        bank = None if self._kind is Kind.ROWS else smooth_fields(FIELDS, *self._size(values), generator)
        self._denoiser = denoiser = self._kind.new_network(values, generator)
        settings = short_training(context)
        count = self._kind.batch_size(settings.batch_size)

        def batch_loss() -> Tensor:
            picked = torch.randint(len(values), (count,), generator=generator).to(values.device)
            x0, sigma = values[picked], draw_levels(count, values, generator)
            noise = self._noise(count, values, generator, bank)
            squares = denoiser.loss_weight(sigma) * (denoiser(diffuse(x0, sigma, noise), sigma) - x0).square()
            return mean_over(squares, None if observed is None else observed[picked])

        train(denoiser, batch_loss, settings, progress=progress)

    def _errors(self, features: Features) -> Errors:
        values, sigmas = self._kind.values(features), levels_from(DEPTH_SIGMA, STEPS)
        draws = self._draws(values)
        total = torch.zeros_like(values)
        for draw in draws:
            total += sample_dpm_solver(self._trained(), diffuse(values, DEPTH_SIGMA, draw), sigmas)
        mean = total / len(draws)
        return self._kind.errors(features, (values - mean).square(), mean)

    def _draws(self, values: Tensor) -> Tensor:
        """Return opposite pairs of noise (draws, ...) for samples of this size, the same at every call."""
        draws = PATCH_DRAWS if self._kind is Kind.GRIDS else DRAWS
        half = self._noise(draws // 2, values, torch.Generator().manual_seed(self._seed))
        return torch.cat([half, -half])

    def _noise(self, count: int, values: Tensor, generator: torch.Generator, bank: Tensor | None = None) -> Tensor:
        """Return noise for `count` samples like `values`.

        Smooth fields are drawn from `bank` (fields, rows, columns); None: they are generated.
        """
        channels = values.shape[self._kind.channel_axis]
        if self._kind is Kind.ROWS:
            return torch.randn((count, channels), generator=generator).to(values.device) @ self._mixing.T
        if bank is None:
            fields = smooth_fields(count * channels, *self._size(values), generator)
        else:
            signs = 2.0 * torch.randint(2, (count * channels, 1, 1), generator=generator) - 1.0
            fields = signs * bank[torch.randint(len(bank), (count * channels,), generator=generator)]
        shaped = fields.reshape(count, channels, *fields.shape[1:]).to(values.device)
        return shaped if self._kind is Kind.GRIDS else shaped.squeeze(2).transpose(1, 2)

    def _size(self, values: Tensor) -> tuple[int, int]:
        """Return the rows and columns of a smooth field over a sample."""
        return (values.shape[2], values.shape[3]) if self._kind is Kind.GRIDS else (1, values.shape[1])

    def _learned(self) -> dict[str, Tensor]:
        own = {"kind": torch.tensor([int(self._kind)]), "seed": torch.tensor([self._seed]), "mixing": self._mixing}
        return {**prefixed("denoiser", self._trained().to_state()), **own}

    def _adopt(self, state: Mapping[str, Tensor]) -> None:
        self._kind, self._seed, self._mixing = Kind(int(state["kind"])), int(state["seed"]), state["mixing"]
        self._denoiser = self._kind.network_from(part("denoiser", state))

    def _move(self, device: torch.device) -> None:
        self._trained().to(device)
        self._mixing = self._mixing.to(device)

    def _trained(self) -> PreconditionedDenoiser:
        if self._denoiser is None:
            raise RuntimeError("simplex is not fitted: call fit() first.")
        return self._denoiser


def covariance_root(rows: Tensor) -> Tensor:
    """Return the Cholesky factor L (dim, dim) of the covariance of `rows` (n, dim).

    The covariance L L^T is scaled to a mean variance of 1 and shrunk by SHRINKAGE.
    """
    centred = (rows - rows.mean(dim=0)).double()
    covariance = centred.T @ centred / len(rows)
    mean_variance = covariance.diagonal().mean().clamp(min=1e-6)
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=rows.device)
    shrunk = (1.0 - SHRINKAGE) * covariance / mean_variance + SHRINKAGE * identity
    root: Tensor = torch.linalg.cholesky(shrunk)
    return root.to(rows.dtype)
