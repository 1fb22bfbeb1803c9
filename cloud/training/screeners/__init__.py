"""Screeners as torch modules: exported to ONNX, quantised and run on devices."""

from typing import TypeAlias

from cloud.training.screeners.image import ImageScreener, image_screener
from cloud.training.screeners.series import SeriesScreener, SeriesViews
from cloud.training.screeners.vector import VectorScreener
from cloud.training.screeners.video import VideoScreener

ScreenerModule: TypeAlias = VectorScreener | ImageScreener | VideoScreener

__all__ = [
    "ImageScreener",
    "ScreenerModule",
    "SeriesScreener",
    "SeriesViews",
    "VectorScreener",
    "VideoScreener",
    "image_screener",
]
