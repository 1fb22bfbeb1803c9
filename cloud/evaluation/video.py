"""Video benchmark: score clips, map their scores to frames, and compute frame metrics."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from cloud.evaluation.baselines import KNN
from cloud.evaluation.leaderboard import surprise
from cloud.evaluation.method_metrics import Figures, routing_figures
from cloud.evaluation.metrics import detection_figures
from cloud.evaluation.scoring import Block, BundleScorer
from cloud.evaluation.video_baseline import PositionNeighbours
from cloud.evaluation.video_clips import VideoClips
from cloud.methods.encoders import VideoEncoder
from cloud.modalities import cloud_modality
from cloud.training.samples.clips import split_clips
from cloud.training.samples.videos import VideoData, find_videos
from cloud.training.settings import TrainingSettings
from cloud.training.train import train_bundle
from shared.bundle import Bundle
from shared.errors import DataError


def score_video(path: Path, settings: TrainingSettings) -> tuple[Figures, dict[str, Any]]:
    """Return metrics of the labelled frames by method and routing, and facts of the run.

    Routers forward clips; a clip is anomalous if its last frame is. Raises DataError if no video has labels.
    """
    data = find_videos(path)
    labelled = [video for video in data.test if video.labels is not None]
    if not labelled:
        raise DataError(f"{path}: no video below eval or test has a table of labels beside it.")
    bundle = train_bundle(replace(data, test=()), settings, Ed25519PrivateKey.generate())
    clips = VideoClips.of(labelled, bundle.manifest.input)
    truth = clips.frame_labels
    baseline = _baseline(bundle, replace(data, test=()), settings)
    baseline_scores: list[NDArray[np.float64]] = []

    def blocks() -> Iterator[Block]:
        for block in clips.blocks():
            baseline_scores.append(baseline.score(block).double().numpy())
            yield cast(Block, block)

    scored = BundleScorer(bundle, settings.device).score(blocks())

    def compute_metrics(scores: NDArray[np.float64]) -> dict[str, float]:
        """Return the metrics of all frames from scores (clips,) of the clips."""
        return detection_figures(truth, clips.frame_scores(scores, scored.kept))

    clip_scores = {name: method.scores for name, method in scored.methods.items()}
    clip_scores[KNN] = np.concatenate(baseline_scores)[scored.kept]
    figures = {name: compute_metrics(scores) for name, scores in clip_scores.items()}
    clip_labels = clips.labels
    assert clip_labels is not None  # all of these videos are labelled
    figures |= routing_figures(
        clip_labels[scored.kept], scored, seed=settings.seed, compute_metrics=lambda p: compute_metrics(surprise(p))
    )
    facts = {"normal_samples": len(data.normal), "test_samples": len(truth), "anomalies": int(truth.sum())}
    return figures, {**facts, "edge": scored.edge, "rejected": len(scored.rejections)}


def _baseline(bundle: Bundle, data: VideoData, settings: TrainingSettings) -> PositionNeighbours:
    """Fit the baseline on the normal clips that the bundle was trained on."""
    encoder = cloud_modality(bundle.manifest.modality).load_encoder(bundle)
    if not isinstance(encoder, VideoEncoder):
        raise DataError("The trained bundle is not a video bundle.")
    plain = settings.video.model_copy(update={"relit_share": 0.0})
    generator = np.random.default_rng(settings.seed)
    normal = split_clips(data, plain, generator, held_out_share=settings.data.held_out_share)
    return PositionNeighbours.fit(encoder, np.concatenate([normal.train, normal.held_out]))
