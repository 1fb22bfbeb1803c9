"""What any method for clips must beat: neighbours at each place of a frame, with no notion of time.

The distance to the fifth nearest normal frame at the same place, on the encoder's features before any whitening,
averaged over the places. Neighbours: Ramaswamy, Rastogi & Shim, SIGMOD 2000.
"""

from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.evaluation.baselines import NEIGHBOURS
from cloud.methods.encoders import VideoEncoder

CLIPS_PER_BLOCK = 32


class PlaceNeighbours:
    """Frames of normal clips, by place."""

    def __init__(self, encoder: VideoEncoder, reference: Tensor) -> None:
        self._encoder = encoder
        self._reference = reference  # (places, clips, features)

    @classmethod
    def fit(cls, encoder: VideoEncoder, clips: NDArray[Any]) -> Self:
        """The last frames of normal clips (n, frames, height, width, 3) uint8."""
        return cls(encoder, _appearance(encoder, clips))

    def score(self, clips: NDArray[Any]) -> Tensor:
        """Scores (n,) of clips (n, frames, height, width, 3) uint8."""
        distances = torch.cdist(_appearance(self._encoder, clips), self._reference)
        nearest = distances.kthvalue(min(NEIGHBOURS, distances.shape[2]), dim=2).values
        return nearest.mean(dim=0)


@torch.inference_mode()
def _appearance(encoder: VideoEncoder, clips: NDArray[Any]) -> Tensor:
    """(places, n, features) of the clips' last frames."""
    blocks = (
        torch.from_numpy(clips[start : start + CLIPS_PER_BLOCK]) for start in range(0, len(clips), CLIPS_PER_BLOCK)
    )
    return torch.cat([encoder.features(block)[0] for block in blocks]).transpose(0, 1).contiguous()
