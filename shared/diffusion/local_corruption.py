"""Head that detects corrupted patches of images, and its training.

Diffusion time estimation estimates the amount of noise in a sample (see `time_estimation`). A real defect is local and
structured, so the forward process here is a cold diffusion (Bansal et al., NeurIPS 2023): regions of normal images are
blended with other content, and the head estimates for each patch how likely it was touched. DRAEM (Zavrtanik, Kristan
& Skocaj, ICCV 2021) and CutPaste (Li et al., CVPR 2021) learn from such copies, too. Here the head works on frozen
features, so training takes seconds.
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
MAX_EPOCHS, MIN_STEPS = 32, 300  # over the touched patches of small sets, which need fewer steps than TRAINING has
UNTOUCHED_WEIGHT = 4.0  # the highest patches decide on an image, so a false alarm costs more than a miss
FEATURE_SPACE_VECTORS = 30_000


class CorruptionHead(nn.Module):
    """Network for the log odds that a patch was touched: the mean of two networks.

    One network sees all `dim` details of a patch, the other only the first `fine`, which depend on few surrounding
    pixels. Details with a large receptive field help on images that look alike and mislead on an unknown layout.
    """

    def __init__(self, dim: int, fine: int | None = None, hidden: tuple[int, ...] = HIDDEN):
        super().__init__()
        self.dim, self.fine = dim, dim if fine is None else fine
        self.of_fine, self.of_all = _network(self.fine, hidden), _network(dim, hidden)

    def forward(self, details: Tensor) -> Tensor:
        """Return log odds (n, rows, columns) for details (n, dim, rows, columns)."""
        of_fine, of_all = self.opinions(details)
        return (of_fine + of_all) / 2

    def opinions(self, details: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log odds of each network: (n, rows, columns)."""
        return self.of_fine(details[:, : self.fine]).squeeze(1), self.of_all(details).squeeze(1)

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return copies of the parameters, by name."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.state_dict().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the head that `to_arrays` wrote. Raises ValueError for other arrays."""
        try:
            layers = {int(name.split(".")[1]) for name in arrays if name.startswith("of_all.")}
            shapes = [arrays[f"of_all.{layer}.weight"].shape for layer in sorted(layers)]
            head = cls(shapes[0][1], arrays["of_fine.0.weight"].shape[1], tuple(shape[0] for shape in shapes[:-1]))
            head.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            raise ValueError(f"Not a corruption head: {' '.join(str(error).split())}") from None
        return head


def _network(dim: int, hidden: tuple[int, ...]) -> nn.Sequential:
    """Return an MLP for each place: 1 x 1 convolutions, which engines run in INT8."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip((dim, *hidden), hidden, strict=False):
        layers += [nn.Conv2d(inputs, outputs, 1), nn.ReLU(), nn.Dropout(DROPOUT)]
    return nn.Sequential(*layers, nn.Conv2d((dim, *hidden)[-1], 1, 1))


@dataclass(frozen=True)
class CorruptedPatches:
    """Details of patches from corrupted copies of images, of any float type.

    Attributes:
        touched: (n, dim), patches that the corruption changed.
        untouched: (m, dim), the other patches.
        fine: Number of leading details that depend on few surrounding pixels; None: all of them.
    """

    touched: Tensor
    untouched: Tensor
    fine: int | None = None

    def __post_init__(self) -> None:
        if self.touched.ndim != 2 or self.touched.shape[1:] != self.untouched.shape[1:]:
            raise ValueError(f"Patches {tuple(self.touched.shape)} and {tuple(self.untouched.shape)} do not match.")
        if not len(self.touched) or not len(self.untouched):
            raise ValueError("A corruption head needs touched and untouched patches; one kind is missing.")


def training_settings(patches: CorruptedPatches) -> OptimizerSettings:
    """Return TRAINING, with fewer steps for few touched patches: MAX_EPOCHS epochs, at least MIN_STEPS steps."""
    steps = max(MIN_STEPS, MAX_EPOCHS * len(patches.touched) // (TRAINING.batch_size // 2))
    return TRAINING.model_copy(update={"steps": min(TRAINING.steps, steps)})


def perturbed_patches(normals: Tensor, generator: torch.Generator) -> CorruptedPatches:
    """Return perturbed copies of normal vectors (n, dim); they replace corrupted copies for data without pixels."""
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
    """Train `head` in place on touched and untouched patches; return the mean of the last losses.

    The head learns the log odds that a patch was touched; the prior odds are 1 to UNTOUCHED_WEIGHT.
    `settings.batch_size` counts patches, half of each kind. `generator` is on the CPU.
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
    """Return the weighted cross entropy of `count` touched patches followed by the untouched ones."""
    found, left = F.softplus(-log_odds[:count]).mean(), F.softplus(log_odds[count:]).mean()
    return (found + UNTOUCHED_WEIGHT * left) / (1.0 + UNTOUCHED_WEIGHT)
