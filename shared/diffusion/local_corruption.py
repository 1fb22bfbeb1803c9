"""Train a head to tell the places of an image that were taken away from normal.

Diffusion time estimation asks how much noise was added to a sample (see `time_estimation`). The noise of a real defect
is local and has structure, so here the forward process is one of cold diffusion (Bansal et al., NeurIPS 2023): places
of normal images are blended with something else, and of each patch the head says how likely it was touched. Learning
from such copies is the way of DRAEM (Zavrtanik, Kristan & Skocaj, ICCV 2021) and CutPaste (Li et al., CVPR 2021); here
on frozen features, which takes seconds. The head sees a patch's surroundings: an edge is a scratch or the rim of a
part, depending on how it goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from shared.diffusion.distillation import perturb
from shared.diffusion.training import OptimizerSettings, Progress, train

WIDTH = 64
TRAINING = OptimizerSettings(steps=800, batch_size=4096, learning_rate=2e-3, max_seconds=120.0)  # batches of patches
PASSES, LEAST_STEPS = 8, 400  # over all patches of small sets, which need fewer steps than TRAINING has
TOUCHED_SHARE = 0.1  # of a patch's pixels; patches changed less, but changed, count as neither
PLAIN_SHARE = 0.25  # of a batch, drawn anywhere; the rest lies around a touched patch
CROP = 24  # patches, a side
MAX_CROPS = 512
FEATURE_SPACE_VECTORS = 30_000


class CorruptionHead(nn.Module):
    """Log odds that a patch was touched, from a map of patches: a convolutional network that sees 5 x 5 of them.

    Under 0.4 MB for 128 inputs. At the map's edge the outermost patches are repeated.
    """

    def __init__(self, dim: int, width: int = WIDTH):
        super().__init__()
        self.dim, self.width = dim, width
        self.layers = nn.Sequential(
            nn.Conv2d(dim, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate"),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate"),
            nn.ReLU(),
            nn.Conv2d(width, 1, 1),
        )

    def forward(self, details: Tensor) -> Tensor:
        """(n, rows, columns) of details (n, dim, rows, columns)."""
        log_odds: Tensor = self.layers(details).squeeze(1)
        return log_odds

    def to_arrays(self) -> dict[str, NDArray[np.float32]]:
        """The parameters by name, copied."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.state_dict().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The head that `to_arrays` wrote. Raises ValueError if they are none."""
        try:
            width, dim = np.asarray(arrays["layers.0.weight"]).shape[:2]
            head = cls(dim, width)
            head.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f"Not a corruption head: {' '.join(str(error).split())}") from None
        return head


@dataclass(frozen=True)
class CorruptedMaps:
    """Encoded images, corrupted copies and plain ones: `details` (n, dim, rows, columns), of any float type; `touched`
    (n, rows, columns) the share of each patch's pixels that was changed."""

    details: Tensor
    touched: Tensor

    def __post_init__(self) -> None:
        if self.details.ndim != 4 or self.touched.shape != (len(self.details), *self.details.shape[2:]):
            raise ValueError(f"Maps {tuple(self.details.shape)} and {tuple(self.touched.shape)} do not match.")
        if not (self.touched > TOUCHED_SHARE).any() or not (self.touched == 0).any():
            raise ValueError("A head learns from changed patches and others: one kind is missing.")


def training_of(maps: CorruptedMaps) -> OptimizerSettings:
    """TRAINING, with fewer steps where there are few patches to see."""
    steps = max(LEAST_STEPS, PASSES * maps.touched.numel() // TRAINING.batch_size)
    return TRAINING.model_copy(update={"steps": min(TRAINING.steps, steps)})


def perturbed_maps(normals: Tensor, generator: torch.Generator) -> CorruptedMaps:
    """What stands in where there are no pixels to corrupt: normal vectors (n, dim) perturbed as vectors, a map each."""
    inputs, rows = perturb(normals, FEATURE_SPACE_VECTORS, generator)
    moved = (inputs - normals[rows]).norm(dim=1) > 0
    vectors = torch.cat([inputs[moved], normals])
    touched = torch.cat([torch.ones(int(moved.sum())), torch.zeros(len(normals))])
    return CorruptedMaps(vectors[:, :, None, None], touched[:, None, None])


def train_on_corrupted(
    head: CorruptionHead,
    maps: CorruptedMaps,
    *,
    settings: OptimizerSettings = TRAINING,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> float:
    """Train `head` in place until its score is the log odds that a patch was touched, both kinds being as likely.

    `settings.batch_size` counts patches. `generator` is on the CPU. Returns the mean of the last losses.
    """
    device = next(head.parameters()).device
    sides = tuple(min(CROP, side) for side in maps.touched.shape[1:])
    crops = max(2, min(MAX_CROPS, settings.batch_size // (sides[0] * sides[1])))
    places = torch.nonzero(maps.touched > TOUCHED_SHARE)

    def batch_loss() -> Tensor:
        corners = _corners(maps, places, crops, sides, generator)
        details, touched = _cut(maps, corners, sides)
        return _balanced_loss(head(details.float().to(device)), touched.to(device))

    return train(head, batch_loss, settings, progress=progress)


def _balanced_loss(log_odds: Tensor, touched: Tensor) -> Tensor:
    """Cross entropy in which touched and untouched patches weigh the same, however many there are."""
    changed, unchanged = touched > TOUCHED_SHARE, touched == 0
    found = (F.softplus(-log_odds) * changed).sum() / changed.sum().clamp(min=1)
    left = (F.softplus(log_odds) * unchanged).sum() / unchanged.sum().clamp(min=1)
    return (found + left) / 2


def _corners(
    maps: CorruptedMaps, places: Tensor, crops: int, sides: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """(crops, 3) int64: the map of each crop, and its first row and column."""

    def below(limit: int) -> Tensor:
        return torch.randint(limit, (crops,), generator=generator)

    anywhere = torch.arange(crops) >= crops * (1.0 - PLAIN_SHARE)
    around = places[below(len(places))]
    columns = [torch.where(anywhere, below(len(maps.touched)), around[:, 0])]
    for axis, side in enumerate(sides, start=1):
        last = maps.touched.shape[axis] - side
        near = (around[:, axis] - below(side)).clamp(0, last)
        columns.append(torch.where(anywhere, below(last + 1), near))
    return torch.stack(columns, dim=1)


def _cut(maps: CorruptedMaps, corners: Tensor, sides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Details (crops, dim, *sides) and touched shares (crops, *sides)."""
    if sides == (1, 1):
        return maps.details[corners[:, 0]], maps.touched[corners[:, 0]]
    places = [(n, slice(row, row + sides[0]), slice(column, column + sides[1])) for n, row, column in corners.tolist()]
    details = torch.stack([maps.details[n, :, rows, columns] for n, rows, columns in places])
    return details, torch.stack([maps.touched[place] for place in places])
