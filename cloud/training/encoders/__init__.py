"""Fitting of encoders, and the corrupted copies of images that heads and analyzers learn from."""

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.methods.encoders import PatchEncoder
from cloud.training.encoders.corrupted_patches import corrupted_patches
from cloud.training.encoders.corruption import corrupt
from cloud.training.encoders.image import fit_image_encoder
from cloud.training.encoders.input_size import choose_size
from cloud.training.encoders.video import fit_video_encoder


def fit_encoder(
    inputs: NDArray[Any],
    *,
    generator: torch.Generator,
    dim: int,
    progress: Callable[[float], None] | None = None,
) -> tuple[PatchEncoder, Tensor]:
    """Fit the encoder of images (n, height, width, 3) or clips (n, frames, height, width, 3) uint8, all normal.

    Also returns patch vectors (patches, width) of them. `dim` is the width for images.
    """
    if inputs.ndim == 5:
        return fit_video_encoder(inputs, generator=generator, progress=progress)
    return fit_image_encoder(inputs, generator=generator, dim=dim, progress=progress)


__all__ = ["choose_size", "corrupt", "corrupted_patches", "fit_encoder", "fit_image_encoder", "fit_video_encoder"]
