"""Fitting of the video encoder: a mean and a whitening for each position, from normal clips."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.methods.encoders.video import APPEARANCE_DIM, BATCH_CLIPS, MOTION_DIM, VideoEncoder
from cloud.training.encoders.pretrained import pretrained_backbone
from shared.diffusion.training import Progress
from shared.errors import DataError

# Weight of motion relative to appearance: usual motion must not mask an object in an unusual place.
MOTION_WEIGHT = 0.125
SHRINKAGE_CLIPS = 152  # weight in clips of the covariance of all places, relative to that of one place
WHITENING_FLOOR = 0.01  # share of the mean variance of all places, added to each direction


def fit_video_encoder(
    clips: NDArray[Any],
    *,
    generator: torch.Generator,
    dims: tuple[int, int] = (APPEARANCE_DIM, MOTION_DIM),
    progress: Progress | None = None,
) -> tuple[VideoEncoder, Tensor]:
    """Fit the encoder on normal clips (n, frames, height, width, 3) uint8, on top of pretrained features.

    Also returns the patch vectors (patches, dim) it was fitted on, in an order drawn from `generator`. Raises
    DataError for a size it cannot take or fewer than two clips, MissingExtraError without the backbone's weights.
    """
    if len(clips) < 2:
        raise DataError(f"The video encoder is fitted on two clips or more, not {len(clips)}.")
    encoder = VideoEncoder(clips.shape[2], clips.shape[3], clips.shape[1], dims, pretrained_backbone())
    parts = []
    for start in range(0, len(clips), BATCH_CLIPS):
        parts.append(torch.stack(encoder.features(torch.from_numpy(clips[start : start + BATCH_CLIPS]))))
        if progress is not None:
            progress(min(start + BATCH_CLIPS, len(clips)) / len(clips))
    features = torch.cat(parts, dim=1)  # (2, n, patches, features)
    _set_whitening(encoder, features)
    vectors = encoder.whiten(*features).flatten(0, 1)
    return encoder, vectors[torch.randperm(len(vectors), generator=generator)]


def _set_whitening(encoder: VideoEncoder, features: Tensor) -> None:
    """Set the whitening from appearance and motion (2, n, patches, 152)."""
    for layer, values, size, weight in zip(
        (encoder.appearance, encoder.motion), features, encoder.dims, (1.0, MOTION_WEIGHT), strict=True
    ):
        mean, matrices = whitening_by_position(values.double(), size)
        matrices = matrices * weight
        weight_of_all = matrices.flatten(0, 1)[:, :, None, None].float()
        bias_of_all = -torch.einsum("pkd,pd->pk", matrices, mean).flatten().float()
        layer.load_state_dict({"weight": weight_of_all, "bias": bias_of_all})


def whitening_by_position(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return means (patches, features) and whitening (patches, dim, features) of values (n, patches, features).

    The covariance at a place is shrunk towards that of all places, with the weight of SHRINKAGE_CLIPS clips, and has
    WHITENING_FLOOR of the latter's mean variance added to its diagonal, so that whitening is defined for a place that
    never changes. The `dim` leading principal components are kept.
    """
    mean = values.mean(dim=0)
    centred = (values - mean).transpose(0, 1)  # (patches, n, features)
    own = centred.transpose(1, 2) @ centred / len(values)
    pooled = own.mean(dim=0)
    share = SHRINKAGE_CLIPS / (len(values) + SHRINKAGE_CLIPS)
    floor = max(WHITENING_FLOOR * float(pooled.diagonal().mean()), 1e-6)
    covariance = torch.lerp(own, pooled.expand_as(own), share) + floor * torch.eye(len(pooled), dtype=own.dtype)
    variances, vectors = torch.linalg.eigh(covariance)
    leading = vectors.flip(2)[:, :, :dim] / variances.flip(1)[:, None, :dim].sqrt()
    return mean, leading.transpose(1, 2)
