"""Diffusion imputation: the error of masked spans of a window, imputed by a denoiser.

Sources:

* Chen et al., "ImDiffusion: Imputed Diffusion Models for Multivariate Time Series Anomaly Detection" (VLDB 2023):
  complementary grating masks, so that each reading is hidden once and has visible neighbours;
* Xiao et al., "Imputation-based Time-Series Anomaly Detection with Conditional Weight-Incremental Diffusion Models"
  (DiffAD, KDD 2023);
* Lugmayr et al., "RePaint" (CVPR 2022), algorithm 1 without resampling: an unconditional denoiser, conditioned by
  setting visible readings to their true value, noised to the current level, before every step.

With x^ the imputed readings and e_c the root mean square error of channel c on normal windows, the score is

    s(x) = log mean over observed readings (t, c) of  (x_tc - x^_tc)^2 / e_c^2   (no unit, 0 for average normal data)
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, Need, cpu_state, from_patch_scores
from cloud.methods.features import Features, WindowFeatures
from cloud.methods.fit_context import FitContext
from shared.diffusion.denoisers import WindowDenoiser
from shared.diffusion.schedules import geometric_sigmas
from shared.diffusion.training import Progress, fit_denoiser, spread

SIGMA_RANGE = (0.05, 5.0)  # in standard deviations of the readings
STEPS = 6
DRAWS = 2  # opposite noise draws
WIDTH, MAX_BLOCKS = 64, 5
HIDDEN_SPANS = 2  # hidden spans in a grating mask over time
BLOCK_ROWS = 1024
MAX_STANDARDISED = 4_000  # normal windows that the error sizes are estimated from
DEVIATION_FLOOR = 1e-2
ERROR_FLOOR = 1e-6
STEP_SHARE, BATCH_SIZE = 0.6, 128  # share of the common training steps; windows per step


class Imputation(Analyzer):
    """Log mean square error of imputed readings, each channel in units of its error on normal data."""

    name: ClassVar[str] = "imputation"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.WINDOWS})

    def __init__(
        self, denoiser: WindowDenoiser | None = None, noise: Tensor | None = None, sizes: Tensor | None = None
    ):
        self._denoiser = denoiser
        self._noise = torch.empty((0, 0, 0)) if noise is None else noise  # (draws, length, channels)
        self._sizes = torch.empty(0) if sizes is None else sizes  # (channels,): RMS errors on normal windows

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Train the denoiser, draw the noise, and measure each channel's RMS error on normal windows."""
        windows, observed = _windows(features)
        generator = context.generator(self.name)
        length, channels = windows.shape[1:]
        blocks = max(1, min(MAX_BLOCKS, length.bit_length()))
        steps = math.ceil(STEP_SHARE * context.training.steps)
        settings = context.training.model_copy(update={"steps": steps, "batch_size": BATCH_SIZE})
        with torch.enable_grad():
            denoiser = WindowDenoiser.initialised(
                channels, width=WIDTH, blocks=blocks, sigma_data=spread(windows), generator=generator
            ).to(windows.device)
            fit_denoiser(
                denoiser, windows, SIGMA_RANGE, settings, generator=generator, observed=observed, progress=progress
            )
        self._denoiser = denoiser
        half = torch.randn((DRAWS // 2, length, channels), generator=generator)
        self._noise = torch.cat([half, -half]).to(windows.device)
        rows = torch.randperm(len(windows), generator=generator)[:MAX_STANDARDISED].to(windows.device)
        squares = self._squares(windows[rows], None if observed is None else observed[rows])
        seen = torch.ones_like(squares) if observed is None else observed[rows].float()
        means = (squares * seen).sum(dim=(0, 1)) / seen.sum(dim=(0, 1)).clamp(min=1.0)
        self._sizes = means.sqrt().clamp(min=DEVIATION_FLOOR)

    def score(self, features: Features) -> AnalyzerOutput:
        """Return log mean square errors; 0, as for average normal data, for a window without a reading."""
        windows, observed = _windows(features)
        ratios = self._squares(windows, observed) / self._sizes.square()
        seen = torch.ones_like(ratios) if observed is None else observed.float()
        counts = seen.sum(dim=(1, 2))
        means = (ratios * seen).sum(dim=(1, 2)) / counts.clamp(min=1.0)
        return from_patch_scores(torch.log(torch.where(counts > 0, means, 1.0) + ERROR_FLOOR), features)

    def state(self) -> dict[str, Tensor]:
        """Return the weights of the denoiser, the noise draws and the error sizes."""
        weights = {f"denoiser.{name}": value for name, value in self._trained().to_state().items()}
        return cpu_state({**weights, "noise": self._noise, "sizes": self._sizes})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer with the stored denoiser, noise draws and error sizes."""
        prefix = "denoiser."
        own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        return cls(WindowDenoiser.from_state(own), state["noise"], state["sizes"])

    def to(self, device: torch.device) -> Self:
        """Move the denoiser, the noise draws and the error sizes to a device."""
        self._trained().to(device)
        self._noise, self._sizes = self._noise.to(device), self._sizes.to(device)
        return self

    @torch.no_grad()
    def _squares(self, windows: Tensor, observed: Tensor | None) -> Tensor:
        """Return square errors of imputation (n, length, channels), averaged over masks and noise draws."""
        averages = [torch.zeros_like(windows[:0])]
        for start in range(0, len(windows), BLOCK_ROWS):
            block = windows[start : start + BLOCK_ROWS]
            known = torch.ones_like(block) if observed is None else observed[start : start + BLOCK_ROWS].float()
            total = torch.zeros_like(block)
            for mask in grating_masks(block.shape[1], block.shape[2]).to(block):
                for noise in self._noise:
                    total += (1.0 - mask) * (self._impute(block, mask * known, noise) - block).square()
            # Each reading is hidden once over time and, with two or more channels, once over channels.
            averages.append(total / (len(self._noise) * (2 if block.shape[2] > 1 else 1)))
        return torch.cat(averages)

    def _impute(self, windows: Tensor, visible: Tensor, noise: Tensor) -> Tensor:
        """Return windows (n, length, channels), imputed by DDIM from pure noise where `visible` is 0."""
        sigmas = geometric_sigmas(STEPS, *SIGMA_RANGE).flip(0).to(windows)
        hidden = sigmas[0] * noise.expand_as(windows)
        denoised = windows
        for index, sigma in enumerate(sigmas):
            x = visible * (windows + sigma * noise) + (1.0 - visible) * hidden
            denoised = self._trained()(x, sigma.expand(len(x), 1, 1))
            if index + 1 < len(sigmas):
                hidden = denoised + sigmas[index + 1] / sigma * (x - denoised)
        return visible * windows + (1.0 - visible) * denoised

    def _trained(self) -> WindowDenoiser:
        if self._denoiser is None:
            raise RuntimeError("Imputation is not fitted: call fit() first.")
        return self._denoiser


def grating_masks(length: int, channels: int) -> Tensor:
    """Return complementary pairs of masks (masks, length, channels) float32, 1 = visible.

    The first pair hides alternating spans of time. With two or more channels, a second pair hides every other
    channel. Each pair hides each reading exactly once.
    """
    span = max(1, length // (2 * HIDDEN_SPANS))
    time = ((torch.arange(length) // span) % 2).float()
    masks = [time[:, None].expand(length, channels), 1.0 - time[:, None].expand(length, channels)]
    if channels > 1:
        odd = (torch.arange(channels) % 2).float().expand(length, channels)
        masks += [odd, 1.0 - odd]
    return torch.stack(masks)


def _windows(features: Features) -> tuple[Tensor, Tensor | None]:
    """Return windows (n, length, channels) and their mask; a vector becomes a window of one channel."""
    if isinstance(features, WindowFeatures):
        return features.windows, features.windows_observed
    observed = None if features.observed is None else features.observed.flatten(0, 1).unsqueeze(2)
    return features.flat.unsqueeze(2), observed
