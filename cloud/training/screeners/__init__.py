"""Screeners as torch modules: exported to ONNX, quantised and run on devices."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray

from cloud.methods.encoders import PatchEncoder, VideoEncoder
from cloud.training.screeners.image import EQUAL_WEIGHTS, ImageScreener
from cloud.training.screeners.series import SeriesScreener, SeriesViews
from cloud.training.screeners.vector import VectorScreener
from cloud.training.screeners.video import VideoScreener
from shared.diffusion.local_corruption import CorruptionHead
from shared.diffusion.time_estimation import TimeEstimationHead

Screener: TypeAlias = VectorScreener | ImageScreener | VideoScreener

SCALING_IMAGES = 128  # of the training images, enough for a mean and a deviation at each place
SCALING_PIXELS, MIN_SCALING_IMAGES = SCALING_IMAGES * 640 * 640, 20  # fewer where they are large


def patch_screener(
    encoder: PatchEncoder,
    head: TimeEstimationHead,
    normal: NDArray[Any],
    corruption: CorruptionHead | None = None,
    weights: Sequence[float] = EQUAL_WEIGHTS,
) -> Screener:
    """The whole screener of images or clips. `normal`: graph inputs that set its scales; `weights` of its opinions."""
    if isinstance(encoder, VideoEncoder):
        return VideoScreener(encoder, head)
    screener = ImageScreener(encoder, head, corruption)
    most = max(MIN_SCALING_IMAGES, SCALING_PIXELS // (encoder.height * encoder.width))
    screener.fit(normal[: min(SCALING_IMAGES, most)], weights)
    return screener


__all__ = [
    "ImageScreener",
    "Screener",
    "SeriesScreener",
    "SeriesViews",
    "VectorScreener",
    "VideoScreener",
    "patch_screener",
]
