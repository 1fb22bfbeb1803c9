"""Context that analyzers share while they are fitted: seeds, and the denoiser that most of them use.

Methods on the same features share one denoiser, which is trained once. Each method has its own random generator, named
after it, so that the draws of one method do not change the results of others.
"""

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cloud.methods.features import Features
from shared.diffusion.denoisers import VectorDenoiser
from shared.diffusion.local_corruption import CorruptedPatches
from shared.diffusion.training import OptimizerSettings, Progress, train_denoiser

SIGMA_RANGE = (0.05, 5.0)  # in standard deviations of normal data
TRAINING = OptimizerSettings(steps=2000, batch_size=128, max_seconds=60.0)


@dataclass
class FitContext:
    """Context of one fit.

    Attributes:
        seed: Seed of everything random.
        training: Settings of networks that have none of their own.
        effort: Factor on the training steps of all networks.
        corrupted: Patches of corrupted copies of the training images; None where an encoder or images are missing.
        defects: Features of samples that people labelled as defects; None without labels.
    """

    seed: int = 0
    training: OptimizerSettings = field(default_factory=lambda: TRAINING)
    effort: float = 1.0
    corrupted: CorruptedPatches | None = None
    defects: Features | None = None
    _denoisers: dict[tuple[int, tuple[int, ...]], tuple[Tensor, VectorDenoiser]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.training = self.training.shortened(self.effort)

    def generator(self, name: str) -> torch.Generator:
        """Return a CPU generator; equal seeds and names give equal draws, different names independent ones."""
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)

    def denoiser(
        self, normals: Tensor, observed: Tensor | None = None, progress: Progress | None = None
    ) -> VectorDenoiser:
        """Return the denoiser of normal vectors (n, dim) for noise levels in SIGMA_RANGE, trained by the first call.

        `observed`: (n, dim) bool, false where a value is missing.
        """
        key = (normals.data_ptr(), tuple(normals.shape))
        if key not in self._denoisers:
            generator = self.generator("denoiser")
            denoiser = train_denoiser(
                normals, SIGMA_RANGE, self.training, generator=generator, observed=observed, progress=progress
            )
            self._denoisers[key] = (normals, denoiser)  # keeps the tensor alive, so that its address stays unique
        elif progress is not None:
            progress(1.0)
        return self._denoisers[key][1]
