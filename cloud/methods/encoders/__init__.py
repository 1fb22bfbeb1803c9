"""Encoders: what turns an image or a clip into feature vectors, one a patch; rows need none, windows have views."""

from cloud.methods.encoders.choice import (
    ENCODER_FILE,
    PatchEncoder,
    Screener,
    encoder_bytes,
    encoder_state,
    fit_encoder,
    load_encoder,
    screener_of,
)
from cloud.methods.encoders.corrupted_patches import corrupted_patches
from cloud.methods.encoders.image import FINE_DETAILS, ImageEncoder
from cloud.methods.encoders.screener import ImageScreener, VectorScreener
from cloud.methods.encoders.series_views import SeriesScreener, SeriesViews
from cloud.methods.encoders.video import VideoEncoder
from cloud.methods.encoders.video_screener import VideoScreener

__all__ = [
    "ENCODER_FILE",
    "FINE_DETAILS",
    "ImageEncoder",
    "ImageScreener",
    "PatchEncoder",
    "Screener",
    "SeriesScreener",
    "SeriesViews",
    "VectorScreener",
    "VideoEncoder",
    "VideoScreener",
    "corrupted_patches",
    "encoder_bytes",
    "encoder_state",
    "fit_encoder",
    "load_encoder",
    "screener_of",
]
