"""Block-masked reconstruction: the error of inpainted blocks of a sample.

Source: Iqbal, Khalid, Chen & Hua, "Unsupervised Anomaly Detection in Medical Images Using Masked Diffusion Model"
(mDDPM, MLMI 2023).

A block is replaced by noise and inpainted from the visible rest. Hidden entries cannot be copied from the input. This
avoids the identity shortcut: a denoiser that sees the whole sample, even a noised one, may return structure that it
never saw in training.

A block is a group of features of a row, a span of a window, or squares of a grid of patches. A cover is a set of blocks
that hides each entry once. With x^ the inpainted entries, e_i^2 the mean square error of entry i on normal data, the
mean taken over entries i and covers with different borders, the score is

    s(x) = log mean (x_i - x^_i)^2 / e_i^2   (no unit, 0 for average normal data)
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from cloud.methods.base import Need
from cloud.methods.canvas import Kind, draw_levels
from cloud.methods.conditioned import ConditionedDenoiser
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from cloud.methods.restoration import Errors, Restoration, levels_from, opposite_pairs, part, prefixed, short_training
from shared.diffusion.denoisers import PreconditionedDenoiser
from shared.diffusion.samplers import sample_dpm_solver
from shared.diffusion.training import Progress, train

BLOCKS = 4  # blocks per cover, each of about a quarter of the entries
COVERS = 4  # covers of rows and windows
GRID_COVERS = 2  # covers of patch grids
SQUARE = 3  # side of a hidden square, in patches
DEPTH_SIGMA = 5.0  # level of the noise that replaces a block, in units of the normal spread
STEPS = 1  # one step predicts the mean; with more steps the scatter of a drawn sample adds to the error


class BlockMaskedReconstruction(Restoration):
    """Log mean square error of the inpainted entries, each entry hidden once per cover."""

    name: ClassVar[str] = "block_masked"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.WINDOWS, Need.PATCH_GRID})

    def __init__(self) -> None:
        super().__init__()
        self._kind = Kind.ROWS
        self._network: PreconditionedDenoiser | None = None
        self._seed = 0  # of the covers and noise, which are the same for every sample

    def _learn(self, features: Features, context: FitContext, generator: torch.Generator, progress: Progress) -> None:
        self._kind = kind = Kind.of(features)
        self._seed = int(torch.randint(2**31, (1,), generator=generator))
        values, observed = kind.values(features), kind.observed(features)
        extra = values.shape[kind.channel_axis] + self._flags(values[:1]).shape[kind.channel_axis]
        self._network = kind.new_network(values, generator, extra)
        settings = short_training(context)
        count = kind.batch_size(settings.batch_size)

        def batch_loss() -> Tensor:
            picked = torch.randint(len(values), (count,), generator=generator).to(values.device)
            x0, sigma = values[picked], draw_levels(count, values, generator)
            known = None if observed is None else observed[picked]
            hidden = self._random_blocks(x0, generator)
            noise = torch.randn(x0.shape, generator=generator).to(x0.device)
            noised = torch.where(hidden, x0 + sigma * noise, 0.0)
            targets = hidden if known is None else hidden & known
            return self._conditioned(x0, hidden, known).loss(noised, sigma, x0, targets)

        train(self._network, batch_loss, settings, progress=progress)

    def _errors(self, features: Features) -> Errors:
        values, known = self._kind.values(features), self._kind.observed(features)
        covers, noise = self._covers_and_noise(values)
        total, squares = torch.zeros_like(values), torch.zeros_like(values)
        sigmas = levels_from(DEPTH_SIGMA, STEPS)
        for ids, draw in zip(covers, noise, strict=True):
            for block in range(BLOCKS):
                hidden = (ids == block).expand(values.shape)
                inpainted = self._inpainted(values, hidden, known, draw, sigmas)
                total += inpainted
                squares += torch.where(hidden, values - inpainted, 0.0).square()
        return self._kind.errors(features, squares / len(covers), total / len(covers))

    def _inpainted(self, values: Tensor, hidden: Tensor, known: Tensor | None, noise: Tensor, sigmas: Tensor) -> Tensor:
        """Return the restored hidden entries, and 0 elsewhere: shaped like `values`."""
        denoiser = self._conditioned(values, hidden, known)
        start = (DEPTH_SIGMA * noise).expand(values.shape)
        restored = sample_dpm_solver(lambda x, sigma: denoiser(torch.where(hidden, x, 0.0), sigma), start, sigmas)
        return torch.where(hidden, restored, 0.0)

    def _conditioned(self, values: Tensor, hidden: Tensor, known: Tensor | None) -> ConditionedDenoiser:
        """Return the denoiser conditioned on the visible entries and the positions of the others."""
        unseen = hidden if known is None else hidden | ~known
        visible = torch.where(unseen, 0.0, values)
        axis = self._kind.channel_axis
        return ConditionedDenoiser(self._trained(), torch.cat([visible, self._flags(unseen)], dim=axis), axis)

    def _flags(self, unseen: Tensor) -> Tensor:
        """Return 1 for entries that are not visible; one channel for grids, which hide whole patches."""
        return (unseen[:, :1] if self._kind is Kind.GRIDS else unseen).float()

    def _random_blocks(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """Return one random block of a random cover for each sample: bool, shaped like `values`."""
        ids = random_covers(self._kind, values, len(values), generator)
        chosen = torch.randint(BLOCKS, (len(values),), generator=generator)
        if self._kind is Kind.ROWS:
            chosen %= values.shape[1]  # a row of few features has fewer blocks
        return (ids == chosen.reshape(-1, *[1] * (ids.ndim - 1))).expand(values.shape).to(values.device)

    def _covers_and_noise(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return covers and noise for samples of this size, the same at every call."""
        generator = torch.Generator().manual_seed(self._seed)
        count = GRID_COVERS if self._kind is Kind.GRIDS else COVERS
        covers = random_covers(self._kind, values, count, generator).to(values.device)
        return covers, opposite_pairs(count, tuple(values.shape[1:]), generator).to(values.device)

    def _learned(self) -> dict[str, Tensor]:
        own = {"kind": torch.tensor([int(self._kind)]), "seed": torch.tensor([self._seed])}
        return {**prefixed("network", self._trained().to_state()), **own}

    def _adopt(self, state: Mapping[str, Tensor]) -> None:
        self._kind, self._seed = Kind(int(state["kind"])), int(state["seed"])
        self._network = self._kind.network_from(part("network", state))

    def _move(self, device: torch.device) -> None:
        self._trained().to(device)

    def _trained(self) -> PreconditionedDenoiser:
        if self._network is None:
            raise RuntimeError("block_masked is not fitted: call fit() first.")
        return self._network


def random_covers(kind: Kind, values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return random covers of samples like `values`: block indices, int64 from 0 to BLOCKS - 1.

    The shapes broadcast against `values`:

    * rows: (count, dim), random groups of features;
    * windows: (count, length, 1), spans over all channels that start at a random time and wrap around;
    * grids: (count, 1, rows, columns), squares. A block is every other square in both directions, so that visible
      patches surround each hidden square.
    """
    if kind is Kind.ROWS:
        return torch.rand((count, values.shape[1]), generator=generator).argsort(dim=1).argsort(dim=1) % BLOCKS
    if kind is Kind.WINDOWS:
        length = values.shape[1]
        start = torch.randint(length, (count, 1, 1), generator=generator)
        return (torch.arange(length).reshape(1, -1, 1) + start) % length * BLOCKS // length
    start = torch.randint(2 * SQUARE, (count, 1, 2), generator=generator)
    down, across = ((torch.arange(size) + start[..., axis]) // SQUARE % 2 for axis, size in enumerate(values.shape[2:]))
    return (2 * down.unsqueeze(2) + across.unsqueeze(1)).unsqueeze(1)
