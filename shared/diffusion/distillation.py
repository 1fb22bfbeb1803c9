"""Train a small head on what a slower teacher says of perturbed normal samples.

The published way, to classify the noise level of isotropically noised normals, leaves a network blind far from the
data. Here normals are perturbed in many ways, and the network regresses what a teacher says of those points: a soft and
exact label, so training is short and stable (Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network",
2015). The teacher is the cloud's fused verdict where there is one, so that edge and cloud agree by construction; or
DTE-NP (see `time_estimation`), which needs nothing but normal samples, hence serves a device too.
"""

import copy
from collections.abc import Callable
from typing import Self

import torch
from pydantic import Field
from torch import Tensor

from shared.diffusion.neighbours import nearest_distances
from shared.diffusion.perturbation import PLAIN, InputLayout, perturb, subsample
from shared.diffusion.time_estimation import TimeEstimationHead, log_posterior_mean
from shared.diffusion.training import OptimizerSettings, Progress, train

LABELLING_SHARE = 0.2  # of the progress reported
NEARBY_QUANTILE = 0.95  # of the normals' own scores: what scores higher is not near them
ANCHOR_SHARE = 0.5  # of the perturbed vectors, the farthest ones: two scales of scores are matched on them


OWN_SHARE = 0.5  # of the perturbed vectors, made by the caller where it knows a way
# Targets (n,) of vectors (n, dim) and of the rows (n,) they came from, -1 where from none.
Teacher = Callable[[Tensor, Tensor], Tensor]
Perturbation = Callable[[int, torch.Generator], Tensor]  # so many perturbed vectors (n, dim)


class DistillationSettings(OptimizerSettings):
    """How a head is distilled."""

    steps: int = Field(default=2000, ge=1, le=1_000_000, title="Steps", description="gradient steps")
    batch_size: int = Field(default=512, ge=1, le=65_536, title="Batch size", description="vectors a step")
    learning_rate: float = Field(
        default=1e-3, gt=0, le=1, title="Learning rate", description="of Adam, at the first step"
    )
    neighbours: int = Field(default=5, ge=1, le=256, title="Neighbours", description="of the DTE-NP posterior")
    max_reference: int = Field(
        default=10_000,
        ge=1,
        title="Largest reference",
        description="normal vectors the posterior looks for neighbours among",
    )
    perturbed: int = Field(
        default=60_000, ge=1, title="Perturbed vectors", description="labelled once and drawn from in training"
    )

    def shortened(self, share: float) -> Self:
        """The same with that share of its steps and of its perturbed vectors, at least one."""
        fewer = {"perturbed": max(1, round(self.perturbed * share))}
        return super().shortened(share).model_copy(update=fewer)


def distill_head(
    head: TimeEstimationHead,
    normals: Tensor,
    *,
    settings: DistillationSettings,
    generator: torch.Generator,
    teacher: Teacher | None = None,
    layout: InputLayout = PLAIN,
    perturbation: Perturbation | None = None,
    progress: Progress | None = None,
) -> float:
    """Train `head` in place on `normals` (n, dim) float32; returns the last mean square error of the scores.

    `teacher` is asked once for the scores of perturbed normals; without one it is DTE-NP among the normals themselves.
    They are made by `perturb`, and by `perturbation` the share OWN_SHARE of them where one is given: for inputs that
    depend on one another, as those of a window do, it makes what samples can look like.
    The optimiser is made anew at each call, so a federated round may call it for a few steps on a given head.
    Raises ValueError for fewer than two normals.
    """
    if len(normals) < 2:
        raise ValueError(f"A head is distilled from at least two normal vectors, not {len(normals)}.")
    device = next(head.parameters()).device
    reference = subsample(normals.to(device), settings.max_reference, generator)
    count = min(settings.perturbed, settings.steps * settings.batch_size)
    own = 0 if perturbation is None else round(OWN_SHARE * count)
    inputs, rows = perturb(reference, count - own, generator, layout)
    if perturbation is not None:
        made = perturbation(own, generator).to(device)
        inputs, rows = torch.cat([inputs, made]), torch.cat([rows, rows.new_full((len(made),), -1)])
    ask = teacher if teacher is not None else neighbour_teacher(reference, settings.neighbours)
    with torch.no_grad():
        targets = ask(inputs, rows)
    report = progress or (lambda share: None)
    report(LABELLING_SHARE)

    def batch_loss() -> Tensor:
        picked = torch.randint(len(inputs), (settings.batch_size,), generator=generator).to(device)
        return torch.nn.functional.mse_loss(head(inputs[picked]), targets[picked])

    return train(
        head, batch_loss, settings, progress=lambda share: report(LABELLING_SHARE + (1.0 - LABELLING_SHARE) * share)
    )


def neighbour_teacher(reference: Tensor, neighbours: int) -> Teacher:
    """DTE-NP among `reference` (n, dim): the log posterior mean noise level. A vector's own row is no neighbour."""

    def ask(inputs: Tensor, rows: Tensor) -> Tensor:
        distances = nearest_distances(inputs, reference, neighbours, own_rows=rows)
        return log_posterior_mean(distances, reference.shape[1])

    return ask


def local_teacher(head: TimeEstimationHead, normals: Tensor, neighbours: int) -> Teacher:
    """What a device can add to a head it was sent: what lies among its own normals is no more suspicious than they are.

    Near the `normals` (n, dim) the lower of two scores: the given head's, and DTE-NP's among them, brought to the
    head's scale by a line through both scores of vectors far away, which both call anomalous. Elsewhere the given
    head's. So a round takes in what this device knows of normality, whatever teacher the head once had, and leaves
    alone what the fleet knows of anomalies.
    """
    sent = copy.deepcopy(head).eval().requires_grad_(False)
    by_neighbours = neighbour_teacher(normals, neighbours)
    own = by_neighbours(normals, torch.arange(len(normals), device=normals.device))
    nearby = own.quantile(NEARBY_QUANTILE)

    def ask(inputs: Tensor, rows: Tensor) -> Tensor:
        given, local = sent(inputs), by_neighbours(inputs, rows)
        far = local.argsort(descending=True)[: max(2, int(len(local) * ANCHOR_SHARE))]
        slope, offset = _line(local[far], given[far])
        return torch.where(local <= nearby, torch.minimum(given, slope * local + offset), given)

    return ask


def _line(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Slope, at least 0, and offset of the least squares line through (n,) points."""
    spread = (x - x.mean()).square().mean()
    slope = ((x - x.mean()) * (y - y.mean())).mean() / spread.clamp(min=1e-12)
    slope = torch.where(spread > 0, slope.clamp(min=0.0), 0.0)
    return slope, y.mean() - slope * x.mean()
