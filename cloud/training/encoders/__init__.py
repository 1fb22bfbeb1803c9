"""Fitting of encoders, and corrupted copies of images for training heads and analyzers."""

from cloud.training.encoders.corrupted_patches import corrupted_patches
from cloud.training.encoders.corruption import corrupt
from cloud.training.encoders.image import fit_image_encoder
from cloud.training.encoders.input_size import choose_size
from cloud.training.encoders.video import fit_video_encoder

__all__ = ["choose_size", "corrupt", "corrupted_patches", "fit_image_encoder", "fit_video_encoder"]
