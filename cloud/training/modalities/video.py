"""Videos in training."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.methods.encoders import PatchEncoder, VideoEncoder
from cloud.training.data import TrainingData
from cloud.training.encoders import fit_video_encoder
from cloud.training.judgement.pixels import CLIP_CORRUPTIONS, copies_of, corrupted_pixels, picture_statistics
from cloud.training.modalities.base import EncodedModality
from cloud.training.samples import Split
from cloud.training.samples.clips import split_clips
from cloud.training.samples.videos import VideoData, find_videos
from cloud.training.screeners import ScreenerModule, VideoScreener
from cloud.training.settings import DataSettings, TrainingSettings
from shared.bundle import InputSpec
from shared.diffusion.distillation import Teacher
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.diffusion.training import Progress
from shared.modality import Modality

if TYPE_CHECKING:
    from cloud.serving.analysis import Analysis


class TrainingVideo(EncodedModality):
    """Clips cut from normal videos, split by whole videos where there are enough."""

    name = Modality.VIDEO
    has_time = True

    def find(self, path: Path, settings: DataSettings, *, to_judge: bool) -> TrainingData:
        """Find the videos of a folder. Raises DataError where there are none."""
        return find_videos(path, to_judge=to_judge)

    def split(
        self,
        data: TrainingData,
        settings: TrainingSettings,
        generator: np.random.Generator,
        progress: Progress | None,
    ) -> Split:
        """Cut and decode the clips and split them."""
        assert isinstance(data, VideoData)
        share = settings.data.held_out_share
        return split_clips(data, settings.video, generator, held_out_share=share, progress=progress)

    def fit_encoder(
        self, train: NDArray[Any], settings: TrainingSettings, generator: torch.Generator, progress: Progress
    ) -> tuple[PatchEncoder, Tensor]:
        """Return the video encoder fitted on normal clips, and patch vectors of them."""
        return fit_video_encoder(train, generator=generator, progress=progress)

    def corrupted_copies(self, normal: NDArray[Any], spec: InputSpec, seed: int) -> dict[str, NDArray[Any]]:
        """Return copies of normal clips with a new object, frozen motion or reversed motion."""
        return corrupted_pixels(CLIP_CORRUPTIONS, normal, copies_of(normal), seed)

    def statistics(self, samples: NDArray[Any], spec: InputSpec) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Return brightness, contrast and sharpness of the last frames of clips."""
        return picture_statistics(samples[:, -1])

    def teacher(self, analysis: "Analysis") -> Teacher | None:
        """Return None: the head learns DTE-NP among the normal patches."""
        return None

    def screener(
        self,
        encoder: PatchEncoder | None,
        head: TimeEstimationHead,
        analysis: "Analysis",
        train: NDArray[Any],
        quantisation: NDArray[Any],
        held_out: NDArray[Any],
    ) -> ScreenerModule:
        """Return encoder and head."""
        assert isinstance(encoder, VideoEncoder)
        return VideoScreener(encoder, head)
