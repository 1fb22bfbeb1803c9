"""Masked likelihood: the negative log-likelihood of hidden cells given the visible cells.

A network learns the conditional distribution of any cells given any others, as masked (absorbing-state) diffusion does:
Austin et al., "Structured Denoising Diffusion Models in Discrete State-Spaces" (NeurIPS 2021), in the order-agnostic
form of Hoogeboom et al., "Autoregressive Diffusion Models" (ICLR 2022, eq. 5). Scoring cells by their neighbours
follows Yin et al., "MCM: Masked Cell Modeling for Anomaly Detection in Tabular Data" (ICLR 2024).

The score is, in nats up to a constant,

    s(x) = mean over observed cells c and masks m that hide c of  -log p(x_c | x_visible(m))

A cell that is hard to predict in normal samples has a wide distribution and little weight. Missing cells are hidden
from the network and not scored.
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
from shared.diffusion.precision import network_precision
from shared.diffusion.training import Progress, train

HIDDEN_SHARES = (0.1, 0.9)  # range of the share of hidden cells in training, drawn uniformly
SCORED_SHARES = (0.1, 0.25, 0.5)  # shares of hidden cells in scoring; each cell is hidden once for each share
COMPONENTS = 3  # mixture components of the distribution of a hidden cell
MAX_MIXTURE_DIM = 32  # one component above it: many visible cells leave little ambiguity
DEGREES_OF_FREEDOM = 4.0  # of Student's t: heavy tails keep one extreme cell from dominating the mean
SIGMA_FLOOR = 0.05  # in standard deviations; bounds the density of a cell that is a function of the others
WIDTH, BLOCKS = 192, 3
MASKED_ON_CPU, MASKED_ON_GPU = 1024, 2**16  # masked copies in one call of the network; on a CPU they fit its cache
STEP_SHARE, BATCH_SIZE = 0.75, 192  # share of the common training steps; samples per step


class _Block(nn.Module):
    """Residual block: h + W2 silu(W1 norm(h))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the output of the block, shaped like `hidden` (batch, width)."""
        update: Tensor = self.second(nn.functional.silu(self.first(self.norm(hidden))))
        return hidden + update


class CellPredictor(nn.Module):
    """Distribution of each cell given the visible cells, a mixture of Student's t distributions."""

    def __init__(self, dim: int, components: int) -> None:
        super().__init__()
        self.dim, self.components = dim, components
        self.body = nn.Sequential(nn.Linear(2 * dim, WIDTH), *(_Block(WIDTH) for _ in range(BLOCKS)))
        self.output = nn.Sequential(nn.LayerNorm(WIDTH), nn.SiLU(), nn.Linear(WIDTH, 3 * components * dim))

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """Return the negative log-likelihood of each cell of `x`, in nats up to a constant: (batch, dim).

        `visible`: mask of 0 and 1, (batch, dim) or (dim,); the network sees the cells with 1 only.
        """
        return negative_log_density(x, self.mixtures(x, visible))

    def mixtures(self, x: Tensor, visible: Tensor) -> Tensor:
        """Return means, spreads and weights of each cell given the visible cells: (..., dim, 3, components)."""
        with network_precision(x.device):
            raw: Tensor = self.output(self.body(torch.cat([x * visible, visible.expand_as(x)], dim=-1)))
        return raw.to(x.dtype).view(*x.shape, 3, self.components)


def negative_log_density(cells: Tensor, mixtures: Tensor) -> Tensor:
    """Return -log p of `cells` (...) in nats up to a constant, given their `mixtures` (..., 3, components)."""
    means, spreads, weights = mixtures.unbind(-2)
    sigma = nn.functional.softplus(spreads + 0.54) + SIGMA_FLOOR  # about 1 before training
    squares = ((cells.unsqueeze(-1) - means) / sigma).square()
    log_density = -0.5 * (DEGREES_OF_FREEDOM + 1.0) * torch.log1p(squares / DEGREES_OF_FREEDOM) - torch.log(sigma)
    nll: Tensor = -torch.logsumexp(log_density + torch.log_softmax(weights, dim=-1), dim=-1)
    return nll


class MaskedLikelihood(Analyzer):
    """Mean negative log-likelihood of the cells, each hidden once for every share in SCORED_SHARES."""

    name: ClassVar[str] = "masked_likelihood"
    explains: ClassVar[bool] = True

    def __init__(self, predictor: CellPredictor | None = None, masks: Tensor | None = None):
        self._predictor = predictor
        self._masks = torch.empty((0, 0)) if masks is None else masks  # (masks, dim), 1 where visible

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Train the predictor on normal vectors, and draw the masks for scoring."""
        normals, dim = features.flat, features.dim
        observed = None if features.observed is None else features.observed.flatten(0, 1)
        generator = context.generator(self.name)
        predictor = CellPredictor(dim, COMPONENTS if dim <= MAX_MIXTURE_DIM else 1)
        initialise(predictor, generator)
        self._predictor = predictor.to(normals.device)

        settings = context.training.model_copy(
            update={"steps": math.ceil(STEP_SHARE * context.training.steps), "batch_size": BATCH_SIZE}
        )

        def batch_loss() -> Tensor:
            rows = torch.randint(len(normals), (settings.batch_size,), generator=generator)
            low, high = HIDDEN_SHARES
            share = low + (high - low) * torch.rand((len(rows), 1), generator=generator)
            hidden = (torch.rand((len(rows), dim), generator=generator) < share).to(normals.device)
            known = torch.ones_like(hidden) if observed is None else observed[rows.to(normals.device)]
            nll = predictor(normals[rows.to(normals.device)], (known & ~hidden).float())
            targets = (known & hidden).float()
            loss: Tensor = (nll * targets).sum() / targets.sum().clamp(min=1.0)
            return loss

        train(predictor, batch_loss, settings, progress=progress)
        self._masks = _covering_masks(dim, generator).to(normals.device)

    def score(self, features: Features) -> AnalyzerOutput:
        """Return mean and single negative log-likelihoods of the observed cells; 0 for missing cells."""
        vectors = features.flat
        observed = None if features.observed is None else features.observed.flatten(0, 1)
        block_rows = max(1, (MASKED_ON_CPU if vectors.device.type == "cpu" else MASKED_ON_GPU) // len(self._masks))
        blocks = [torch.zeros_like(vectors[:0])]
        for start in range(0, len(vectors), block_rows):
            rows = slice(start, start + block_rows)
            blocks.append(self._cell_nll(vectors[rows], None if observed is None else observed[rows]))
        surprises = torch.cat(blocks)
        counts = surprises.shape[1] if observed is None else observed.sum(dim=1).clamp(min=1)
        output = from_patch_scores(surprises.sum(dim=1) / counts, features)
        return replace(output, surprises=surprises.view(features.vectors.shape))

    def state(self) -> dict[str, Tensor]:
        """Return the weights and shape of the predictor, and the masks."""
        predictor = self._trained()
        weights = {f"weights.{name}": value for name, value in predictor.state_dict().items()}
        shape = torch.tensor([predictor.dim, predictor.components])
        return cpu_state({"shape": shape, "masks": self._masks, **weights})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer with the stored predictor and masks."""
        dim, components = (int(value) for value in state["shape"])
        predictor = CellPredictor(dim, components)
        prefix = "weights."
        predictor.load_state_dict(
            {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        )
        return cls(predictor.eval(), state["masks"])

    def to(self, device: torch.device) -> Self:
        """Move the predictor and the masks to a device."""
        self._trained().to(device)
        self._masks = self._masks.to(device)
        return self

    @torch.no_grad()
    def _cell_nll(self, vectors: Tensor, observed: Tensor | None) -> Tensor:
        """Return the mean negative log-likelihood of each cell over the masks that hide it: (rows, dim)."""
        known = torch.ones_like(vectors) if observed is None else observed.to(vectors.dtype)
        copies = vectors.expand(len(self._masks), *vectors.shape)
        mixtures = self._trained().mixtures(copies, known * self._masks.unsqueeze(1))
        # Of each mask, only the cells that it hides: (hidden, rows).
        mask, cell = (self._masks == 0).nonzero().unbind(1)
        nll = negative_log_density(vectors.T[cell], mixtures.transpose(1, 2)[mask, cell])
        total = torch.zeros_like(vectors.T).index_add_(0, cell, nll)
        return known * total.T / len(SCORED_SHARES)

    def _trained(self) -> CellPredictor:
        if self._predictor is None:
            raise RuntimeError("MaskedLikelihood is not fitted: call fit() first.")
        return self._predictor


def _covering_masks(dim: int, generator: torch.Generator) -> Tensor:
    """Return masks (masks, dim) float32, 1 = visible, that hide each cell once for each share."""
    masks = []
    for share in SCORED_SHARES:
        size = max(1, math.ceil(share * dim))
        for group in torch.split(torch.randperm(dim, generator=generator), size):
            mask = torch.ones(dim)
            mask[group] = 0.0
            masks.append(mask)
    return torch.stack(masks)
