"""Distillation of a small head from a slower teacher, on perturbed normal samples.

The published training classifies the noise level of normals with isotropic noise. Such a network fails far from the
data. Here normals are perturbed in several ways, and the network regresses the teacher's scores of them. These labels
are soft and exact, so training is short and stable (Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural
Network", 2015). The teacher is the cloud's fusion if there is one: edge and cloud then agree by construction.
Otherwise the teacher is DTE-NP (see `time_estimation`), which needs only normal samples and also runs on a device.
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

LABELLING_SHARE = 0.2  # of the reported progress
NEARBY_QUANTILE = 0.95  # of the normals' own scores: a vector with a higher score is not near them
ANCHOR_SHARE = 0.5  # share of perturbed vectors, the farthest ones, on which two scales of scores are matched

CUSTOM_SHARE = 0.5  # of the perturbed vectors, made by the caller's `perturbation` if there is one

# From vectors (n, dim) and their rows of origin (n,), -1 for none, to target scores (n,).
Teacher = Callable[[Tensor, Tensor], Tensor]
Perturbation = Callable[[int, torch.Generator], Tensor]  # from n and a generator to perturbed vectors (n, dim)


class DistillationSettings(OptimizerSettings):
    """Settings of the distillation of a head."""

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
        """Return settings with a share of the steps and of the perturbed vectors, at least one each."""
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
    """Train `head` in place on `normals` (n, dim) float32; return the last mean square error of its scores.

    The teacher scores all perturbed normals once. Each call creates a new optimiser, so a federated round can call this
    for a few steps on a given head. Raises ValueError for fewer than two normals.

    Args:
        head: Network to train.
        normals: Vectors of normal samples.
        settings: Optimiser, and number of perturbed vectors and neighbours.
        generator: Source of all randomness, on the CPU.
        teacher: Function from perturbed vectors to target scores. None: DTE-NP among the normals.
        layout: Columns that hold a mask or modes instead of values.
        perturbation: Maker of realistic perturbed vectors where inputs depend on one another, as in a window. It makes
            CUSTOM_SHARE of the perturbed vectors, and `perturb` the rest.
        progress: Function that receives the share done.
    """
    if len(normals) < 2:
        raise ValueError(f"Distillation needs at least two normal vectors, not {len(normals)}.")
    device = next(head.parameters()).device
    reference = subsample(normals.to(device), settings.max_reference, generator)
    count = min(settings.perturbed, settings.steps * settings.batch_size)
    custom = 0 if perturbation is None else round(CUSTOM_SHARE * count)
    inputs, rows = perturb(reference, count - custom, generator, layout)
    if perturbation is not None:
        made = perturbation(custom, generator).to(device)
        inputs, rows = torch.cat([inputs, made]), torch.cat([rows, rows.new_full((len(made),), -1)])
    label = teacher if teacher is not None else neighbour_teacher(reference, settings.neighbours)
    with torch.no_grad():
        targets = label(inputs, rows)
    report = progress or (lambda share: None)
    report(LABELLING_SHARE)

    def batch_loss() -> Tensor:
        picked = torch.randint(len(inputs), (settings.batch_size,), generator=generator).to(device)
        return torch.nn.functional.mse_loss(head(inputs[picked]), targets[picked])

    return train(
        head, batch_loss, settings, progress=lambda share: report(LABELLING_SHARE + (1.0 - LABELLING_SHARE) * share)
    )


def neighbour_teacher(reference: Tensor, neighbours: int) -> Teacher:
    """Return DTE-NP among `reference` (n, dim): the log posterior mean noise level, without a vector's own row."""

    def label(inputs: Tensor, rows: Tensor) -> Tensor:
        distances = nearest_distances(inputs, reference, neighbours, own_rows=rows)
        return log_posterior_mean(distances, reference.shape[1])

    return label


def local_teacher(head: TimeEstimationHead, normals: Tensor, neighbours: int) -> Teacher:
    """Return a teacher that adapts a received head to the normal vectors (n, dim) of one device.

    Near the `normals` the target is the lower of two scores: that of the received head, and DTE-NP's among the normals,
    brought to the head's scale by a line through both scores of distant vectors. Elsewhere the target is the score of
    the received head. A federated round thus adds the device's knowledge of normal samples for any teacher of the
    head, and keeps the fleet's knowledge of anomalies.
    """
    received = copy.deepcopy(head).eval().requires_grad_(False)
    by_neighbours = neighbour_teacher(normals, neighbours)
    own = by_neighbours(normals, torch.arange(len(normals), device=normals.device))
    nearby = own.quantile(NEARBY_QUANTILE)

    def label(inputs: Tensor, rows: Tensor) -> Tensor:
        given, local = received(inputs), by_neighbours(inputs, rows)
        far = local.argsort(descending=True)[: max(2, int(len(local) * ANCHOR_SHARE))]
        slope, offset = _line(local[far], given[far])
        return torch.where(local <= nearby, torch.minimum(given, slope * local + offset), given)

    return label


def _line(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slope, at least 0, and the offset of the least squares line through points (n,)."""
    spread = (x - x.mean()).square().mean()
    slope = ((x - x.mean()) * (y - y.mean())).mean() / spread.clamp(min=1e-12)
    slope = torch.where(spread > 0, slope.clamp(min=0.0), 0.0)
    return slope, y.mean() - slope * x.mean()
