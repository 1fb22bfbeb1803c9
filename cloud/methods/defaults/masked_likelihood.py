"""Masked likelihood: hide cells of a sample, predict them from the rest, and ask how likely the hidden values were.

A network learns the conditional distribution of any cells given any others, as a masked (absorbing-state) diffusion
does: Austin et al., "Structured Denoising Diffusion Models in Discrete State-Spaces" (NeurIPS 2021), in the
order-agnostic form of Hoogeboom et al., "Autoregressive Diffusion Models" (ICLR 2022, eq. 5). That anomalies show in
cells which their neighbours do not explain is from Yin et al., "MCM: Masked Cell Modeling for Anomaly Detection in
Tabular Data" (ICLR 2024). The score is a mean negative log-likelihood, so a cell that is hard to predict in any sample
counts little, and a sample is asked about its observed cells alone.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from cloud.methods.base import Analyzer, AnalyzerOutput, cpu_state, from_patch_scores
from cloud.methods.features import Features
from cloud.methods.fit_context import FitContext
from shared.diffusion.denoisers import initialise
from shared.diffusion.training import Progress, train

HIDDEN_SHARES = (0.1, 0.9)  # of the cells, uniform, in training
SCORED_SHARES = (0.1, 0.25, 0.5)  # every cell is hidden once among few, once among some, once among many
COMPONENTS = 3  # of the mixture that describes a hidden cell
MAX_MIXTURE_DIM = 32  # beyond, one component: with many cells visible the rest leaves little to be undecided about
FREEDOM = 4.0  # degrees of freedom of Student's t: heavier tails than normal, so one wild cell does not decide all
SIGMA_FLOOR = 0.05  # standard deviations: a cell that is a function of others would have an infinite density
WIDTH, BLOCKS = 192, 3
BLOCK_ROWS = 4096
STEPS_SHARE, BATCH_SIZE = 0.75, 192  # of the workshop's steps


class _Block(nn.Module):
    """h + W2 silu(W1 norm(h))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """One residual step."""
        update: Tensor = self.second(nn.functional.silu(self.first(self.norm(hidden))))
        return hidden + update


class CellPredictor(nn.Module):
    """The distribution of every cell given the visible ones: a mixture of Student's t distributions."""

    def __init__(self, dim: int, components: int) -> None:
        super().__init__()
        self.dim, self.components = dim, components
        self.body = nn.Sequential(nn.Linear(2 * dim, WIDTH), *(_Block(WIDTH) for _ in range(BLOCKS)))
        self.output = nn.Sequential(nn.LayerNorm(WIDTH), nn.SiLU(), nn.Linear(WIDTH, 3 * components * dim))

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """Negative log-likelihood (batch, dim), up to a constant, of the cells of `x` given the `visible` (0 or 1)."""
        raw = self.output(self.body(torch.cat([x * visible, visible.expand_as(x)], dim=1)))
        means, spreads, weights = raw.view(len(x), self.dim, 3, self.components).unbind(2)
        sigma = nn.functional.softplus(spreads + 0.54) + SIGMA_FLOOR  # about 1 at first
        squares = ((x.unsqueeze(2) - means) / sigma).square()
        log_density = -0.5 * (FREEDOM + 1.0) * torch.log1p(squares / FREEDOM) - torch.log(sigma)
        nll: Tensor = -torch.logsumexp(log_density + torch.log_softmax(weights, dim=2), dim=2)
        return nll


class MaskedLikelihood(Analyzer):
    """Mean negative log-likelihood of hidden cells, each hidden once for every share in SCORED_SHARES."""

    name: ClassVar[str] = "masked_likelihood"

    def __init__(self, predictor: CellPredictor | None = None, masks: Tensor | None = None):
        self._predictor = predictor
        self._masks = torch.empty((0, 0)) if masks is None else masks  # (masks, dim), 1 where visible

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Train the predictor on normal vectors, and draw the masks."""
        normals, dim = features.flat, features.dim
        observed = None if features.observed is None else features.observed.flatten(0, 1)
        generator = context.generator(self.name)
        predictor = CellPredictor(dim, COMPONENTS if dim <= MAX_MIXTURE_DIM else 1)
        initialise(predictor, generator)
        self._predictor = predictor.to(normals.device)

        settings = context.training.model_copy(
            update={"steps": math.ceil(STEPS_SHARE * context.training.steps), "batch_size": BATCH_SIZE}
        )

        def batch_loss() -> Tensor:
            rows = torch.randint(len(normals), (settings.batch_size,), generator=generator)
            low, high = HIDDEN_SHARES
            share = low + (high - low) * torch.rand((len(rows), 1), generator=generator)
            hidden = (torch.rand((len(rows), dim), generator=generator) < share).to(normals.device)
            known = torch.ones_like(hidden) if observed is None else observed[rows.to(normals.device)]
            nll = predictor(normals[rows.to(normals.device)], (known & ~hidden).float())
            asked = (known & hidden).float()
            loss: Tensor = (nll * asked).sum() / asked.sum().clamp(min=1.0)
            return loss

        train(predictor, batch_loss, settings, progress=progress)
        self._masks = _covering_masks(dim, generator).to(normals.device)

    def score(self, features: Features) -> AnalyzerOutput:
        """Mean negative log-likelihoods of the observed cells, and that of each cell; 0 where nothing is observed."""
        vectors = features.flat
        observed = None if features.observed is None else features.observed.flatten(0, 1)
        parts = [torch.zeros_like(vectors[:0])]
        for start in range(0, len(vectors), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            parts.append(self._surprises(vectors[block], None if observed is None else observed[block]))
        surprises = torch.cat(parts)
        counts = surprises.shape[1] if observed is None else observed.sum(dim=1).clamp(min=1)
        output = from_patch_scores(surprises.sum(dim=1) / counts, features)
        return replace(output, surprises=surprises.view(features.vectors.shape))

    def state(self) -> dict[str, Tensor]:
        """The predictor and the masks."""
        predictor = self._trained()
        weights = {f"weights.{name}": value for name, value in predictor.state_dict().items()}
        shape = torch.tensor([predictor.dim, predictor.components])
        return cpu_state({"shape": shape, "masks": self._masks, **weights})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The analyzer with this predictor and these masks."""
        dim, components = (int(value) for value in state["shape"])
        predictor = CellPredictor(dim, components)
        prefix = "weights."
        predictor.load_state_dict(
            {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        )
        return cls(predictor.eval(), state["masks"])

    def to(self, device: torch.device) -> Self:
        """Move the network to a device."""
        self._trained().to(device)
        self._masks = self._masks.to(device)
        return self

    @torch.no_grad()
    def _surprises(self, vectors: Tensor, observed: Tensor | None) -> Tensor:
        known = torch.ones_like(vectors) if observed is None else observed.to(vectors.dtype)
        total = torch.zeros_like(vectors)
        for mask in self._masks:
            total += self._trained()(vectors, known * mask) * (1.0 - mask)
        return known * total / len(SCORED_SHARES)

    def _trained(self) -> CellPredictor:
        if self._predictor is None:
            raise RuntimeError("MaskedLikelihood is not fitted: call fit() first.")
        return self._predictor


def _covering_masks(dim: int, generator: torch.Generator) -> Tensor:
    """(masks, dim) float32, 1 where visible: for each share, random groups of cells that hide every cell once."""
    masks = []
    for share in SCORED_SHARES:
        size = max(1, math.ceil(share * dim))
        for group in torch.split(torch.randperm(dim, generator=generator), size):
            mask = torch.ones(dim)
            mask[group] = 0.0
            masks.append(mask)
    return torch.stack(masks)
