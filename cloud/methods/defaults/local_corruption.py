"""Local corruption: a classifier of corrupted image patches, or time estimation with local noise.

Sources: the forward process is cold diffusion (Bansal et al., NeurIPS 2023) with the masks of DRAEM (Zavrtanik, Kristan
& Skocaj, ICCV 2021) and CutPaste (Li et al., CVPR 2021); estimation in one pass follows Livernoche et al. (ICLR 2024).

The score of a patch p is log P(corrupted | p) - log P(untouched | p), in nats. The score of an image is the mean of its
highest patches (`peak_scores`). Unlike distances to normal patches, the classifier does not need test images with the
same layout as the training images: it learns the difference between normal patches and their corrupted versions.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, Need, cpu_state, from_patch_scores
from cloud.methods.features import DetailFeatures, Features
from cloud.methods.fit_context import FitContext
from cloud.methods.pooling import peak_scores
from shared.diffusion.local_corruption import (
    CorruptionHead,
    perturbed_patches,
    train_on_corrupted,
    training_settings,
)
from shared.diffusion.training import Progress

BLOCK_ROWS = 16_384  # patches per block; a block holds whole samples


class LocalCorruption(Analyzer):
    """Log odds that a patch was corrupted, from its details.

    Where `FitContext.corrupted` is None, the head is trained on perturbed vectors. Features without details are scored
    by their vectors, each independent of the others.
    """

    name: ClassVar[str] = "local_corruption"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CORRUPTED_COPIES})
    is_place_scaled: ClassVar[bool] = False  # one head for the patches of all positions

    def __init__(self, head: CorruptionHead | None = None):
        self._head = head

    @property
    def corruption_head(self) -> CorruptionHead | None:
        """Trained head; None before `fit`."""
        return self._head

    @property
    def head(self) -> CorruptionHead:
        """Trained head. Raises RuntimeError before `fit`."""
        if self._head is None:
            raise RuntimeError("LocalCorruption is not fitted: call fit() first.")
        return self._head

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Train the head on corrupted and untouched patches."""
        generator = context.generator(self.name)
        corrupted = context.corrupted
        patches = corrupted if corrupted is not None else perturbed_patches(features.flat, generator)
        settings = training_settings(patches).shortened(context.effort)
        if corrupted is None:
            settings = settings.model_copy(update={"steps": context.training.steps, "batch_size": 512})
        self._head = untrained_head(patches.touched.shape[1], patches.fine, generator).to(features.vectors.device)
        with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
            torch.manual_seed(generator.initial_seed())
            train_on_corrupted(self._head, patches, settings=settings, generator=generator, progress=progress)

    @torch.no_grad()
    def score(self, features: Features) -> AnalyzerOutput:
        """Return log odds of corruption per patch (maps), and for images the mean of the highest patches."""
        if not isinstance(features, DetailFeatures):
            blocks = torch.split(features.flat[:, :, None, None], BLOCK_ROWS)
        else:
            maps = features.details.transpose(1, 2).reshape(len(features), -1, *features.grid)
            blocks = torch.split(maps, max(1, BLOCK_ROWS // (features.grid[0] * features.grid[1])))
        output = from_patch_scores(torch.cat([self.head(block).flatten() for block in blocks]), features)
        return output if output.maps is None else replace(output, scores=peak_scores(output.maps))

    def state(self) -> dict[str, Tensor]:
        """Return the weights of the head."""
        return cpu_state(self.head.state_dict())

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer with the stored head. Raises RuntimeError if the weights do not fit."""
        try:
            return cls(CorruptionHead.from_arrays({name: value.numpy() for name, value in state.items()}).eval())
        except ValueError as error:
            raise RuntimeError(str(error)) from None

    def to(self, device: torch.device) -> Self:
        """Move the head to a device."""
        self.head.to(device)
        return self


def untrained_head(dim: int, fine: int | None, generator: torch.Generator) -> CorruptionHead:
    """Return an untrained head for patches of `dim` values, with initial weights from `generator`.

    The first `fine` values are those of the fine levels; None: all of them.
    """
    with torch.random.fork_rng(devices=[]):  # layers initialise their weights from the global generator
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        return CorruptionHead(dim, fine)
