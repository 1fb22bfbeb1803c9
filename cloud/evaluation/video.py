"""Video: clips are judged, their scores mapped back to frames, and frames counted as found or missed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from cloud.encoders import VideoEncoder, load_encoder
from cloud.evaluation.baselines import KNN
from cloud.evaluation.figures import Figures, routing_figures
from cloud.evaluation.leaderboard import surprise
from cloud.evaluation.metrics import detection_figures
from cloud.evaluation.scoring import Block, BundleScorer
from cloud.evaluation.video_baseline import PlaceNeighbours
from cloud.training.clips import clip_ends, frame_scores, frame_step, read_clips, split_clips
from cloud.training.settings import TrainingSettings
from cloud.training.train import train_bundle
from cloud.training.videos import Video, VideoData, find_videos
from shared.bundle import Bundle, InputSpec
from shared.errors import DataError

_CLIPS_A_BLOCK = 32


def score_video(path: Path, settings: TrainingSettings) -> tuple[Figures, dict[str, Any]]:
    """Figures of the labelled frames by method and routing, and facts of the run.

    A router sends clips; a clip is anomalous if its last frame is. Raises DataError where no video is labelled.
    """
    clips = settings.video
    data = find_videos(path)
    labelled = [(video, video.labels) for video in data.test if video.labels is not None]
    if not labelled:
        raise DataError(f"{path}: no video below eval or test has a table of labels beside it.")
    bundle = train_bundle(replace(data, test=()), settings, Ed25519PrivateKey.generate())
    spec = bundle.manifest.input
    steps = [frame_step(video, clips) for video, _ in labelled]
    ends = [
        clip_ends(len(labels), step, spec.window_length, max(1, step // 2))
        for (_, labels), step in zip(labelled, steps, strict=True)
    ]

    naive = _naive(bundle, replace(data, test=()), settings)
    naive_scores: list[NDArray[np.float64]] = []

    def blocks() -> Iterator[Block]:
        for (video, _), last, step in zip(labelled, ends, steps, strict=True):
            for block in _blocks(video, last, step, spec):
                naive_scores.append(naive.score(block).double().numpy())
                yield cast(Block, block)

    scored = BundleScorer(bundle, settings.device).score(blocks())
    owner = np.repeat(np.arange(len(ends)), [len(last) for last in ends])[scored.kept]
    kept = np.concatenate(ends)[scored.kept]
    truth = np.concatenate([labels for _, labels in labelled])

    def judge(scores: NDArray[np.float64]) -> dict[str, float]:
        """Figures of all frames, from the scores (clips,) of the clips."""
        frames = [
            frame_scores(scores[owner == index], kept[owner == index], step * (spec.window_length - 1), len(labels))
            for index, ((_, labels), step) in enumerate(zip(labelled, steps, strict=True))
        ]
        return detection_figures(truth, np.concatenate(frames))

    said = {name: method.scores for name, method in scored.methods.items()}
    said[KNN] = np.concatenate(naive_scores)[scored.kept]
    figures = {name: judge(scores) for name, scores in said.items()}
    of_clips = np.concatenate([labels[last] for (_, labels), last in zip(labelled, ends, strict=True)])[scored.kept]
    figures |= routing_figures(of_clips, scored, seed=settings.seed, judge=lambda p: judge(surprise(p)))
    facts = {"normal_samples": len(data.normal), "test_samples": len(truth), "anomalies": int(truth.sum())}
    return figures, {**facts, "edge": scored.edge, "rejected": len(scored.rejections)}


def _naive(bundle: Bundle, data: VideoData, settings: TrainingSettings) -> PlaceNeighbours:
    """The baseline, of the same normal clips that the bundle was made from."""
    encoder = load_encoder(bundle)
    if not isinstance(encoder, VideoEncoder):
        raise DataError("The bundle that was trained is not one for videos.")
    plain = settings.video.model_copy(update={"relit_share": 0.0})
    generator = np.random.default_rng(settings.seed)
    normal = split_clips(data, plain, generator, held_out_share=settings.data.held_out_share)
    return PlaceNeighbours.fit(encoder, np.concatenate([normal.train, normal.held_out]))


def _blocks(video: Video, ends: NDArray[np.intp], step: int, spec: InputSpec) -> Iterator[NDArray[np.uint8]]:
    """The clips that end at these frames, a few at a time."""
    for start in range(0, len(ends), _CLIPS_A_BLOCK):
        yield read_clips(video, ends[start : start + _CLIPS_A_BLOCK], spec, step)
