"""Train a head to tell the places of an image that were taken away from normal.

Diffusion time estimation asks how much noise was added to a sample (see `time_estimation`). The noise of a real defect
is local and has structure, so here the forward process is one of cold diffusion (Bansal et al., NeurIPS 2023): places
of normal images are blended with something else, and of each patch the head says how likely it was touched. Learning
from such copies is the way of DRAEM (Zavrtanik, Kristan & Skocaj, ICCV 2021) and CutPaste (Li et al., CVPR 2021); here
on frozen features, which takes seconds.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from shared.diffusion.distillation import perturb
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.diffusion.training import OptimizerSettings, Progress, train

TRAINING = OptimizerSettings(steps=1500, batch_size=512, max_seconds=120.0)
FEATURE_SPACE_VECTORS = 30_000


@dataclass(frozen=True)
class CorruptedPatches:
    """`touched` (n, dim): encoded patches that were changed; `untouched` (m, dim): others, of the same images too."""

    touched: Tensor
    untouched: Tensor

    def __post_init__(self) -> None:
        if not len(self.touched) or not len(self.untouched):
            raise ValueError("A head learns from changed patches and others: one kind is missing.")
        if self.touched.ndim != 2 or self.touched.shape[1:] != self.untouched.shape[1:]:
            raise ValueError(f"Patches {tuple(self.touched.shape)} and {tuple(self.untouched.shape)} do not match.")


def perturbed_patches(normals: Tensor, generator: torch.Generator) -> CorruptedPatches:
    """What stands in where there are no pixels to corrupt: the normal vectors (n, dim) perturbed as vectors."""
    inputs, rows = perturb(normals, FEATURE_SPACE_VECTORS, generator)
    moved = (inputs - normals[rows]).norm(dim=1) > 0
    return CorruptedPatches(inputs[moved], normals)


def train_on_corrupted(
    head: TimeEstimationHead,
    patches: CorruptedPatches,
    *,
    settings: OptimizerSettings = TRAINING,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> float:
    """Train `head` in place until its score is the log odds that a patch was touched; returns the last loss.

    Half of each batch is touched, half not, whatever their numbers. `generator` is on the CPU.
    """
    device = next(head.parameters()).device
    half = max(1, settings.batch_size // 2)
    labels = torch.cat([torch.ones(half), torch.zeros(half)]).to(device)

    def draw(vectors: Tensor) -> Tensor:
        rows = torch.randint(len(vectors), (half,), generator=generator)
        return vectors[rows.to(vectors.device)].to(device)

    def batch_loss() -> Tensor:
        log_odds = head(torch.cat([draw(patches.touched), draw(patches.untouched)]))
        return torch.nn.functional.binary_cross_entropy_with_logits(log_odds, labels)

    return train(head, batch_loss, settings, progress=progress)
