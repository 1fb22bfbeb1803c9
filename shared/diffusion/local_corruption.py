"""Train a head to tell the places of an image that were taken away from normal.

Diffusion time estimation asks how much noise was added to a sample (see `time_estimation`). The noise of a real defect
is local and has structure, so here the forward process is one of cold diffusion (Bansal et al., NeurIPS 2023): places
of normal images are blended with something else, and of each patch the head says how likely it was touched. Learning
from such copies is the way of DRAEM (Zavrtanik, Kristan & Skocaj, ICCV 2021) and CutPaste (Li et al., CVPR 2021); here
on frozen features, which takes seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from shared.diffusion.perturbation import perturb
from shared.diffusion.training import OptimizerSettings, Progress, train

HIDDEN = (128, 64)
DROPOUT = 0.3
TRAINING = OptimizerSettings(steps=600, batch_size=4096, learning_rate=2e-3, max_seconds=120.0)  # batches of patches
PASSES, LEAST_STEPS = 32, 300  # over the touched patches of small sets, which need fewer steps than TRAINING has
UNTOUCHED_WEIGHT = 4.0  # an image is judged by its highest patches, so a false alarm costs more than a miss
FEATURE_SPACE_VECTORS = 30_000


class CorruptionHead(nn.Module):
    """Log odds that a patch was touched: the mean of two networks, of which one sees `fine` of its `dim` values only.

    Values that know much of the surroundings say more of images that look alike, and mislead where a layout is new; the
    network without them cannot be misled.
    """

    def __init__(self, dim: int, fine: int | None = None, hidden: tuple[int, ...] = HIDDEN):
        super().__init__()
        self.dim, self.fine = dim, dim if fine is None else fine
        self.of_fine, self.of_all = _network(self.fine, hidden), _network(dim, hidden)

    def forward(self, details: Tensor) -> Tensor:
        """(n, rows, columns) of details (n, dim, rows, columns)."""
        of_fine, of_all = self.opinions(details)
        return (of_fine + of_all) / 2

    def opinions(self, details: Tensor) -> tuple[Tensor, Tensor]:
        """What each network says: (n, rows, columns)."""
        return self.of_fine(details[:, : self.fine]).squeeze(1), self.of_all(details).squeeze(1)

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """The parameters by name, copied."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.state_dict().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The head that `to_arrays` wrote. Raises ValueError if they are none."""
        try:
            layers = {int(name.split(".")[1]) for name in arrays if name.startswith("of_all.")}
            shapes = [arrays[f"of_all.{layer}.weight"].shape for layer in sorted(layers)]  # in whatever order they come
            head = cls(shapes[0][1], arrays["of_fine.0.weight"].shape[1], tuple(shape[0] for shape in shapes[:-1]))
            head.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            raise ValueError(f"Not a corruption head: {' '.join(str(error).split())}") from None
        return head


def _network(dim: int, hidden: tuple[int, ...]) -> nn.Sequential:
    """Of each place by itself; 1 x 1 convolutions, which engines run in INT8."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip((dim, *hidden), hidden, strict=False):
        layers += [nn.Conv2d(inputs, outputs, 1), nn.ReLU(), nn.Dropout(DROPOUT)]
    return nn.Sequential(*layers, nn.Conv2d((dim, *hidden)[-1], 1, 1))


@dataclass(frozen=True)
class CorruptedPatches:
    """Details of patches, of any float type: `touched` (n, dim), which were changed, `untouched` (m, dim).

    `fine`: number of leading details that see few of the surroundings; None: all of them.
    """

    touched: Tensor
    untouched: Tensor
    fine: int | None = None

    def __post_init__(self) -> None:
        if self.touched.ndim != 2 or self.touched.shape[1:] != self.untouched.shape[1:]:
            raise ValueError(f"Patches {tuple(self.touched.shape)} and {tuple(self.untouched.shape)} do not match.")
        if not len(self.touched) or not len(self.untouched):
            raise ValueError("A head learns from changed patches and others: one kind is missing.")


def training_of(patches: CorruptedPatches) -> OptimizerSettings:
    """TRAINING, with fewer steps where there are few touched patches to see."""
    steps = max(LEAST_STEPS, PASSES * len(patches.touched) // (TRAINING.batch_size // 2))
    return TRAINING.model_copy(update={"steps": min(TRAINING.steps, steps)})


def perturbed_patches(normals: Tensor, generator: torch.Generator) -> CorruptedPatches:
    """What stands in where there are no pixels to corrupt: normal vectors (n, dim) perturbed as vectors."""
    inputs, rows = perturb(normals, FEATURE_SPACE_VECTORS, generator)
    return CorruptedPatches(inputs[(inputs - normals[rows]).norm(dim=1) > 0], normals)


def train_on_corrupted(
    head: CorruptionHead,
    patches: CorruptedPatches,
    *,
    settings: OptimizerSettings = TRAINING,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> float:
    """Train `head` in place until its score is the log odds that a patch was touched, those of a touched one being one
    to UNTOUCHED_WEIGHT beforehand.

    `settings.batch_size` counts patches, half of each kind. `generator` is on the CPU. Returns the mean of the last
    losses.
    """
    device = next(head.parameters()).device
    count = max(1, settings.batch_size // 2)

    def drawn(vectors: Tensor) -> Tensor:
        rows = torch.randint(len(vectors), (count,), generator=generator)
        return vectors[rows.to(vectors.device)].to(device).float()

    def batch_loss() -> Tensor:
        details = torch.cat([drawn(patches.touched), drawn(patches.untouched)])
        losses = [_loss(opinion.flatten(), count) for opinion in head.opinions(details.T[None, :, None])]
        return (losses[0] + losses[1]) / 2

    return train(head, batch_loss, settings, progress=progress)


def _loss(log_odds: Tensor, count: int) -> Tensor:
    """Cross entropy of `count` touched patches, and of the untouched ones after them."""
    found, left = F.softplus(-log_odds[:count]).mean(), F.softplus(log_odds[count:]).mean()
    return (found + UNTOUCHED_WEIGHT * left) / (1.0 + UNTOUCHED_WEIGHT)
