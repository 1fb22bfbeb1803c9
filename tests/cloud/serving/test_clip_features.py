"""Analyzers and screener pool clips in the same way."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.methods.base import from_patch_scores
from cloud.methods.clip_pooling import clip_scores
from cloud.methods.pooling import image_scores
from cloud.serving.encoding import Samples
from shared.bundle import InputSpec
from shared.preprocessing import ImagePreprocessor, Preprocessor, VideoPreprocessor

SIDE = 32


class ConstantEncoder:
    """Encoder that gives four equal patches for every picture."""

    grid = (2, 2)

    def encode(self, images: NDArray[Any]) -> Tensor:
        return torch.arange(4.0).square().expand(len(images), 4).unsqueeze(2).clone()


def scores(preprocessor: Preprocessor, inputs: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """Return patch scores of some samples, and an analyzer's scores pooled from them."""
    samples = Samples.prepare(preprocessor, inputs)
    features = samples.fit_features(ConstantEncoder(), torch.device("cpu"), torch.Generator()).at(slice(0, 2))
    judged = samples.features(ConstantEncoder(), torch.device("cpu"))
    fitted = from_patch_scores(features.flat[:, 0], features).scores
    torch.testing.assert_close(from_patch_scores(judged.flat[:, 0], judged).scores[:2], fitted)
    return features.vectors.squeeze(2), fitted


def test_analyzers_and_screener_pool_clips_alike() -> None:
    spec = InputSpec(image_height=SIDE, image_width=SIDE, window_length=2, frame_interval_s=1.0)
    patches, pooled = scores(VideoPreprocessor(spec), np.zeros((3, 2, SIDE, SIDE, 3), dtype=np.uint8))
    torch.testing.assert_close(pooled, clip_scores(patches))
    assert not torch.allclose(pooled, image_scores(patches.unflatten(1, (2, 2))))


def test_images_use_the_pooling_of_images() -> None:
    spec = InputSpec(image_height=SIDE, image_width=SIDE)
    patches, pooled = scores(ImagePreprocessor(spec), np.zeros((3, SIDE, SIDE, 3), dtype=np.uint8))
    torch.testing.assert_close(pooled, image_scores(patches.unflatten(1, (2, 2))))
