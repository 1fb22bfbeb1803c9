"""Baseline for clips: nearest neighbours at each position of the frame, without temporal information.

The score is the distance to the fifth nearest normal frame at the same position, averaged over the positions. Features
are those of the encoder before whitening. Source: Ramaswamy, Rastogi & Shim, SIGMOD 2000.
"""

from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.evaluation.baselines import NEIGHBOURS
from cloud.methods.encoders import VideoEncoder

CLIPS_PER_BLOCK = 32


class PositionNeighbours:
    """Nearest-neighbour search among the last frames of normal clips, one index per position."""

    def __init__(self, encoder: VideoEncoder, reference: Tensor) -> None:
        self._encoder = encoder
        self._reference = reference  # (positions, clips, features)

    @classmethod
    def fit(cls, encoder: VideoEncoder, clips: NDArray[Any]) -> Self:
        """Fit the baseline on the last frames of normal clips (n, frames, height, width, 3) uint8."""
        return cls(encoder, _appearance(encoder, clips))

    def score(self, clips: NDArray[Any]) -> Tensor:
        """Return scores (n,) of clips (n, frames, height, width, 3) uint8."""
        distances = torch.cdist(_appearance(self._encoder, clips), self._reference)
        nearest = distances.kthvalue(min(NEIGHBOURS, distances.shape[2]), dim=2).values
        return nearest.mean(dim=0)


@torch.inference_mode()
def _appearance(encoder: VideoEncoder, clips: NDArray[Any]) -> Tensor:
    """Return the features (positions, n, features) of the last frame of each clip."""
    blocks = (
        torch.from_numpy(clips[start : start + CLIPS_PER_BLOCK]) for start in range(0, len(clips), CLIPS_PER_BLOCK)
    )
    return torch.cat([encoder.features(block)[0] for block in blocks]).transpose(0, 1).contiguous()
