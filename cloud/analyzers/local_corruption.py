"""How likely each place of an image was taken away from normal: time estimation with local, structured noise.

Source: the corruption is cold diffusion's (Bansal et al., NeurIPS 2023) with the masks of DRAEM (Zavrtanik, Kristan &
Skocaj, ICCV 2021) and CutPaste (Li et al., CVPR 2021); the estimate in one pass is that of Livernoche et al. (ICLR
2024). Unlike distances it needs no likeness of layout: what it learns is what a normal place looks like beside what it
turns into.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.analyzers.base import AnalyzerOutput, Features, cpu_state, from_patch_scores, in_blocks
from cloud.analyzers.workshop import Workshop
from shared.diffusion import TimeEstimationHead
from shared.diffusion.local_corruption import TRAINING, CorruptedPatches, perturbed_patches, train_on_corrupted
from shared.diffusion.training import Progress

HIDDEN = (192, 192)
BLOCK_ROWS = 16_384


@dataclass
class ImageWorkshop(Workshop):
    """A workshop that also holds encoded patches of corrupted training images (`cloud.encoders.corrupted_patches`)."""

    corrupted: CorruptedPatches | None = None


class LocalCorruption:
    """Log odds that a patch was corrupted. Without an ImageWorkshop the vectors themselves are perturbed."""

    name: ClassVar[str] = "local_corruption"

    def __init__(self, head: TimeEstimationHead | None = None):
        self._head = head

    def fit(self, features: Features, workshop: Workshop, progress: Progress | None = None) -> None:
        """Train the head."""
        generator = workshop.generator(self.name)
        corrupted = workshop.corrupted if isinstance(workshop, ImageWorkshop) else None
        patches = corrupted if corrupted is not None else perturbed_patches(features.flat, generator)
        steps = TRAINING.steps if corrupted is not None else workshop.training.steps
        self._head = new_head(patches.touched.shape[1], generator).to(features.vectors.device)
        settings = TRAINING.model_copy(update={"steps": steps})
        train_on_corrupted(self._head, patches, settings=settings, generator=generator, progress=progress)

    def score(self, features: Features) -> AnalyzerOutput:
        """Log odds, each patch by itself."""
        with torch.no_grad():
            return from_patch_scores(in_blocks(self._trained(), features.flat, BLOCK_ROWS), features)

    def state(self) -> dict[str, Tensor]:
        """The head's weights."""
        return cpu_state(self._trained().state_dict())

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The analyzer with these weights."""
        try:
            return cls(TimeEstimationHead.from_arrays({name: value.numpy() for name, value in state.items()}).eval())
        except ValueError as error:
            raise RuntimeError(str(error)) from None

    def to(self, device: torch.device) -> Self:
        """Move the head to a device."""
        self._trained().to(device)
        return self

    def _trained(self) -> TimeEstimationHead:
        if self._head is None:
            raise RuntimeError("LocalCorruption is not fitted: call fit() first.")
        return self._head


def new_head(dim: int, generator: torch.Generator) -> TimeEstimationHead:
    """An untrained head for patches of `dim` values, its first weights from `generator`."""
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        return TimeEstimationHead(dim, HIDDEN)
