"""Clips of video on the serving side."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from cloud.modalities.base import CloudModality, PreparedSamples, View
from shared.bundle import Bundle
from shared.modality import Modality

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cloud.methods import Features
    from cloud.methods.encoders import Encoder, PatchEncoder


class Video(CloudModality):
    """Clips (frames, height, width, 3): patches of an encoder of frames and their change over time."""

    name = Modality.VIDEO
    noun = "clip"
    view = View.CLIP
    source_kind = "camera"
    default_methods = ("knn", "time_estimation", "score_norm")
    has_encoder = True
    has_frames = True
    store_refusal = "Clips of the store cannot be trained on: upload the videos."
    chunk_samples = 16

    def load_encoder(self, bundle: Bundle, device: str = "cpu") -> "PatchEncoder | None":
        """Return the video encoder of a bundle on `device`. Raises BundleError if it is damaged."""
        from cloud.methods.encoders import VideoEncoder, encoder_state

        return VideoEncoder.from_state(encoder_state(bundle)).to(device)

    def pooling(self) -> "Callable[[Tensor], Tensor]":
        """Return the mean over the higher half of the patches; see `cloud.methods.clip_pooling`."""
        from cloud.methods.clip_pooling import clip_scores

        return clip_scores

    def features(self, samples: PreparedSamples, encoder: "Encoder | None", device: "torch.device") -> "Features":
        """Return the patches of the clips."""
        assert encoder is not None
        return self.fit_features(encoder.encode(samples.inputs).to(device), encoder)
