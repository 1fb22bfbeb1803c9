"""FP32 torch module of a bundle's screener, rebuilt from the cloud part of the bundle."""

import numpy as np
from safetensors.numpy import load

from cloud.methods.encoders import VideoEncoder
from cloud.modalities import cloud_modality
from cloud.serving.analysis import Analysis
from cloud.training.screeners import (
    ScreenerModule,
    SeriesScreener,
    SeriesViews,
    VectorScreener,
    VideoScreener,
    image_screener,
)
from shared.bundle import HEAD_FILE, REFERENCE_FILE, Bundle
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.modalities import load_preprocessor


def fp32_screener(bundle: Bundle) -> ScreenerModule | SeriesScreener:
    """Return the screener with the bundle's weights; an image screener takes its scales from random images."""
    head = TimeEstimationHead.from_arrays(load(bundle.read(HEAD_FILE)))
    encoder = cloud_modality(bundle.manifest.modality).load_encoder(bundle)
    if encoder is None:
        reference, preprocessor = bundle.arrays(REFERENCE_FILE), load_preprocessor(bundle)
        held_out = preprocessor.graph_inputs(reference["held_out"])
        screener = VectorScreener.within(head, reference["quantisation"], held_out)
        views = SeriesViews.of(preprocessor)
        return screener if views is None else SeriesScreener(views, screener)
    if isinstance(encoder, VideoEncoder):
        return VideoScreener(encoder, head)
    spec = bundle.manifest.input
    pixels = np.random.default_rng(0).integers(0, 256, (4, spec.image_height, spec.image_width, 3), dtype=np.uint8)
    return image_screener(encoder, head, pixels, Analysis.load(bundle, "cpu").corruption_head)
