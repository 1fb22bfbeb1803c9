"""The screener's head: its widths, its distillation, and the check of a head that others trained."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.training.modalities import TrainingModality
from cloud.training.settings import TrainingSettings
from shared.bundle import Bundle, InputSpec
from shared.diffusion.distillation import Perturbation, Teacher, distill_head
from shared.diffusion.perturbation import InputLayout
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.diffusion.training import Progress, one_thread
from shared.errors import BundleMismatchError
from shared.preprocessing import mask_width

MAX_HEAD_PARAMETERS = 250_000  # 1 MB in FP32: what a federated round sends and a device holds
WIDTH_STEP = 8


def hidden_widths(dim: int, widths: tuple[int, ...]) -> tuple[int, ...]:
    """Return `widths`, narrowed in proportion until a head of `dim` inputs fits into MAX_HEAD_PARAMETERS."""
    while _parameters(dim, widths) > MAX_HEAD_PARAMETERS and min(widths) > WIDTH_STEP:
        widths = tuple(max(WIDTH_STEP, width - WIDTH_STEP * round(width / min(widths))) for width in widths)
    return widths


def new_head(dim: int, modality: TrainingModality, settings: TrainingSettings) -> TimeEstimationHead:
    """Return an untrained head for vectors of `dim` values, with weights drawn from the seed of the settings."""
    hidden = settings.hidden or hidden_widths(dim, modality.hidden)
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(settings.seed)
        return TimeEstimationHead(dim, tuple(hidden))


def distil(
    head: TimeEstimationHead,
    normals: Tensor,
    spec: InputSpec,
    modality: TrainingModality,
    settings: TrainingSettings,
    generator: torch.Generator,
    *,
    device: torch.device,
    teacher: Teacher | None,
    perturbation: Perturbation | None,
    progress: Progress,
) -> float:
    """Train the head on normal vectors (n, dim), leave it on the CPU and return the last loss."""
    with one_thread():
        loss = distill_head(
            head.to(device),
            normals.to(device),
            settings=settings.distillation(modality.distillation),
            generator=generator,
            teacher=teacher,
            layout=InputLayout(mask_width(spec), len(spec.modes)),
            perturbation=perturbation,
            progress=progress,
        )
    head.cpu()
    return loss


def checked_head(bundle: Bundle, arrays: Mapping[str, NDArray[Any]], dim: int) -> TimeEstimationHead:
    """Return the head in `arrays`, which must take graph inputs of `dim` values.

    Raises BundleMismatchError for arrays that are not finite or not of such a head.
    """
    where = f"The new head for bundle {bundle.manifest.bundle_id}"
    if not all(np.isfinite(np.asarray(array)).all() for array in arrays.values()):
        raise BundleMismatchError(f"{where} holds NaN or infinite weights: the training that made it diverged.")
    try:
        head = TimeEstimationHead.from_arrays(arrays)
    except (ValueError, KeyError) as error:
        raise BundleMismatchError(f"{where} cannot be used: {error}") from None
    if head.dim != dim:
        raise BundleMismatchError(f"{where} takes {head.dim} inputs, and its preprocessing gives {dim}.")
    return head


def _parameters(dim: int, widths: tuple[int, ...]) -> int:
    """Return the number of weights and biases of a multilayer perceptron from `dim` values to one."""
    return sum((inputs + 1) * outputs for inputs, outputs in pairwise((dim, *widths, 1)))
