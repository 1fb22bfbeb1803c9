"""Encoders that turn an image or a clip into one feature vector per patch; fitted in `cloud.training.encoders`."""

from cloud.methods.encoders.image import FINE_DETAILS, ImageEncoder
from cloud.methods.encoders.ports import DetailEncoder, Encoder
from cloud.methods.encoders.storage import PatchEncoder, encoder_bytes, encoder_state, load_encoder
from cloud.methods.encoders.video import VideoEncoder

__all__ = [
    "FINE_DETAILS",
    "DetailEncoder",
    "Encoder",
    "ImageEncoder",
    "PatchEncoder",
    "VideoEncoder",
    "encoder_bytes",
    "encoder_state",
    "load_encoder",
]
