"""The whole screener of clips as one module: what is exported, quantised and run on devices."""

import torch
from torch import Tensor, nn

from cloud.methods.clip_pooling import clip_scores
from cloud.methods.encoders import VideoEncoder
from cloud.training.screeners.layers import as_convolution
from shared.diffusion.time_estimation import TimeEstimationHead


class VideoScreener(nn.Module):
    """Clips (batch, frames, height, width, 3) uint8 to scores (batch,) and anomaly maps (batch, rows, columns).

    A clip's score speaks for its last frame: it is that frame's, as `clip_scores` makes it.
    """

    output_names = ("score", "anomaly_map")

    def __init__(self, encoder: VideoEncoder, head: TimeEstimationHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.patch_head = nn.Sequential(*(as_convolution(layer) for layer in head.layers))
        self.eval().requires_grad_(False)

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (batch,) and the patch scores they are made of (batch, rows, columns)."""
        anomaly_map = self.patch_head(self.encoder(input)).squeeze(1)
        return clip_scores(anomaly_map), anomaly_map

    def example(self) -> Tensor:
        """Two clips, for the export."""
        encoder = self.encoder
        return torch.zeros(2, encoder.frames, encoder.height, encoder.width, 3, dtype=torch.uint8)
