"""Screener of clips as one torch module, ready to export and quantise."""

import torch
from torch import Tensor, nn

from cloud.methods.clip_pooling import clip_scores
from cloud.methods.encoders import VideoEncoder
from cloud.training.screeners.layers import as_convolution
from shared.diffusion.time_estimation import TimeEstimationHead


class VideoScreener(nn.Module):
    """Clips (batch, frames, height, width, 3) uint8 to scores (batch,) and anomaly maps (batch, rows, columns).

    The score of a clip is the score of its last frame, see `clip_scores`.
    """

    output_names = ("score", "anomaly_map")

    def __init__(self, encoder: VideoEncoder, head: TimeEstimationHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.patch_head = nn.Sequential(*(as_convolution(layer) for layer in head.layers))
        self.eval().requires_grad_(False)

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (batch,) and the patch scores (batch, rows, columns) that they are pooled from."""
        anomaly_map = self.patch_head(self.encoder(input)).squeeze(1)
        return clip_scores(anomaly_map), anomaly_map

    def example(self) -> Tensor:
        """Return two clips, for the export."""
        encoder = self.encoder
        return torch.zeros(2, encoder.frames, encoder.height, encoder.width, 3, dtype=torch.uint8)
