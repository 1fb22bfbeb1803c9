"""Ports of encoders: protocols that any encoder of images or clips can satisfy."""

from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray
from torch import Tensor


class Encoder(Protocol):
    """Encoder of images or clips. `grid`: rows and columns of patches."""

    grid: tuple[int, int]

    def encode(self, images: NDArray[Any]) -> Tensor:
        """Return patch vectors (n, patches, dim) float32.

        `images`: images (n, height, width, 3) or clips (n, frames, height, width, 3) uint8.
        """
        ...


@runtime_checkable
class DetailEncoder(Encoder, Protocol):
    """Encoder with a second, wider view of each patch."""

    def views(self, images: NDArray[Any]) -> tuple[Tensor, Tensor]:
        """Return vectors as `encode` does, and details (n, patches, details) float32."""
        ...
