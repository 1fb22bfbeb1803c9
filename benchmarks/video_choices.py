"""Defaults for video and alternatives to them, on hours of a camera with drawn events.

Every other unlabelled hour of `cctv_upcam` is judged at one frame per second, with events drawn by
`benchmarks/video_tasks.py`. The neighbouring hours are the calibration set, the remaining hours the normal data. No
label is used. Without the folder of that camera the benchmark is skipped.

Figures are AUROC in % of the frames of one kind of event against the normal frames of the same hour, the mean over
kinds and hours. `across hours` compares all events with the normal frames of all hours.

* `baseline`: distance to the fifth nearest neighbour at each place, unwhitened, mean over places, on the same normal
  clips.
* `default_choice`: length of the whitened vectors, pooled by `clip_scores`.
* `share_...`, `motion_...`, `relit_...`, `values_...`, `mean_over_...`: the same with one change: the share of places
  pooled, the weight of motion, the share of relit copies, the number of appearance values, and the seconds over which
  scores are averaged.
* The last lines are the analyzers, their fusion, and the head distilled for the screener.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.video_tasks import KINDS, Hour, hours, with_events
from cloud.methods import ANALYZERS, Features, FitContext, PatchFeatures
from cloud.methods.clip_pooling import TOP_SHARE, clip_scores
from cloud.methods.encoders.video import APPEARANCE_DIM, MOTION_DIM, VideoEncoder
from cloud.methods.fusion import Fusion
from cloud.methods.pooling import image_scores
from cloud.metrics import auroc
from cloud.modalities import cloud_modality
from cloud.training.encoders.pretrained import pretrained_backbone
from cloud.training.encoders.video import MOTION_WEIGHT, whitening_by_position
from cloud.training.samples.clips import choose_size, relit
from shared.diffusion.distillation import DistillationSettings, distill_head
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.images import resize
from shared.modality import Modality

MEMBERS = cloud_modality(Modality.VIDEO).default_methods
JUDGED_HOUR_STEP = 2  # judge every second hour
TRAIN_INTERVAL_S, TEST_SECONDS = 24, slice(600, 1300)
NEIGHBOURS, BATCH = 5, 16
SHARES, WEIGHTS, RELIT, DIMS, SECONDS = (
    (1.0, 0.3, 0.1),
    (0.0, 0.25, 0.5, 1.0),
    (0.0, 0.25, 1.0),
    (32, 64, 128),
    (2, 3, 5),
)
HEAD, STEPS = (256, 256), 3000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Encoded:
    """Appearance and motion features (2, n, places, features) of one hour.

    `normal`: normal clips. `relit`: the same clips in other light. `judged`: the clips that end in each second of a
    stretch with events. `kinds`: (seconds,) kind of event in each second, -1 for none.
    """

    normal: Tensor
    relit: Tensor
    judged: Tensor
    kinds: NDArray[np.intp]


@dataclass(frozen=True)
class VideoTask:
    """Judged hour with its normal features, their relit copies and the calibration features `held_out`."""

    normal: Tensor
    relit: Tensor
    held_out: Tensor
    hour: Encoded


def run(quick: bool = False) -> dict[str, Any]:
    """Return mean AUROC in % by choice; `quick` judges one hour and skips the analyzers."""
    torch.set_num_threads(1)
    encoded, encoder = _encode_hours(2 * JUDGED_HOUR_STEP if quick else None)
    if encoder is None:
        return {"skipped": "the folder of the camera is absent"}
    judged = range(0, len(encoded), JUDGED_HOUR_STEP)
    tasks = [_task(encoded, index) for index in (judged[:1] if quick else judged)]
    found: dict[str, list[Floats]] = {}
    for index, task in enumerate(tasks):
        scores = {**_scores_by_choice(task), **({} if quick else _scores_by_method(task, encoder))}
        for name, values in scores.items():
            found.setdefault(name, []).append(values)
        print(
            f"hour {index + 1} of {len(tasks)}",
            {name: _auroc_by_kind(task, values) for name, values in scores.items()},
            flush=True,
        )
    figures: dict[str, Any] = {name: _summary(tasks, values) for name, values in found.items()}
    default = {"share": TOP_SHARE, "weight": MOTION_WEIGHT, "appearance": APPEARANCE_DIM, "fused": " + ".join(MEMBERS)}
    return {**figures, "default": default}


def _scores_by_choice(task: VideoTask) -> dict[str, Floats]:
    """Return scores (seconds,) by choice."""
    places = _lengths(task)
    scores = {"baseline": _neighbours(task), "default_choice": _array(clip_scores(places))}
    for share in SHARES:
        count = max(1, round(share * places.shape[1]))
        scores[f"share_{share:g}"] = _array(places.topk(count, dim=1).values.mean(dim=1))
    scores["share_as_of_images"] = _array(image_scores(places.unsqueeze(1)))
    for weight in WEIGHTS:
        scores[f"motion_{weight:g}"] = _array(clip_scores(_lengths(task, weight=weight)))
    for share in RELIT:
        scores[f"relit_{share:g}"] = _array(clip_scores(_lengths(task, copies=share)))
    for dim in DIMS:
        scores[f"values_{dim}"] = _array(clip_scores(_lengths(task, dim=dim)))
    for seconds in SECONDS:
        scores[f"mean_over_{seconds}_s"] = _averaged(scores["default_choice"], seconds)
    return scores


def _scores_by_method(task: VideoTask, encoder: VideoEncoder) -> dict[str, Floats]:
    """Return scores (seconds,) of the analyzers, their fusion and the distilled head."""
    whiten = _whitening(task)
    normal = whiten(torch.cat([task.normal, task.relit], dim=1))
    calibration, judged = whiten(task.held_out), whiten(task.hour.judged)
    context, held_out, scores = FitContext(seed=0), {}, {}
    for name in MEMBERS:
        analyzer = ANALYZERS[name]()
        analyzer.fit(_features(normal, encoder), context)
        with torch.inference_mode():
            held_out[name] = _array(analyzer.score(_features(calibration, encoder)).scores)
            scores[name] = _array(analyzer.score(_features(judged, encoder)).scores)
    scores["fused"] = Fusion.fit(held_out).statistic(scores)
    torch.manual_seed(0)
    head = TimeEstimationHead(normal.shape[2], HEAD)
    settings = DistillationSettings(steps=STEPS)
    distill_head(head, normal.flatten(0, 1), settings=settings, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        scores["head"] = _array(clip_scores(head(judged.flatten(0, 1)).reshape(judged.shape[:2])))
    return scores


def _encode_hours(max_count: int | None) -> tuple[list[Encoded], VideoEncoder | None]:
    """Return the features of at most `max_count` hours, and the encoder before whitening.

    The encoder is None if the folder is absent.
    """
    encoder, encoded = None, []
    for index, hour in enumerate(hours()):
        if index == max_count:
            break
        height, width = choose_size(*hour.frames.shape[1:3])
        encoder = encoder or VideoEncoder(height, width, backbone=pretrained_backbone())
        encoded.append(_encode_hour(hour, encoder, np.random.default_rng(index), judged=index % JUDGED_HOUR_STEP == 0))
        print(f"{hour.name} encoded", flush=True)
    return encoded, encoder


def _encode_hour(hour: Hour, encoder: VideoEncoder, rng: np.random.Generator, *, judged: bool) -> Encoded:
    stretch, kinds, _ = with_events(hour.frames[TEST_SECONDS], rng)
    ends = np.arange(TRAIN_INTERVAL_S, len(hour.frames), TRAIN_INTERVAL_S)
    normal = _clips(hour.frames, ends, encoder)
    return Encoded(
        _encode(normal, encoder),
        _encode(relit(normal, len(normal), rng), encoder),
        _encode_stretch(stretch if judged else stretch[:2], encoder),
        kinds[1:] if judged else kinds[1:2],
    )


def _encode_stretch(frames: NDArray[np.uint8], encoder: VideoEncoder) -> Tensor:
    """Return features (2, n - 1, places, features) of the clips that end at each of n frames except the first.

    n is even. Each frame is encoded once: a pair gives the appearance of its last frame, and with the motion that of
    its first frame.
    """
    last, motion = _encode(_clips(frames, np.arange(1, len(frames), 2), encoder), encoder)
    appearance = torch.stack([last - motion, last], dim=1).flatten(0, 1)
    return torch.stack([appearance[1:], appearance[1:] - appearance[:-1]])


def _clips(frames: NDArray[np.uint8], ends: NDArray[np.intp], encoder: VideoEncoder) -> NDArray[np.uint8]:
    """Return pairs (n, 2, height, width, 3) of frames one second apart that end at `ends`."""
    shape = (len(ends), encoder.frames, encoder.height, encoder.width, 3)
    pairs = np.zeros(shape, dtype=np.uint8)
    for row, end in enumerate(ends):
        for position in range(encoder.frames):
            frame = frames[end - encoder.frames + 1 + position]
            pairs[row, position] = resize(frame, encoder.height, encoder.width)
    return pairs


@torch.inference_mode()
def _encode(clips: NDArray[np.uint8], encoder: VideoEncoder) -> Tensor:
    places = encoder.grid[0] * encoder.grid[1]
    parts = [torch.zeros(2, 0, places, encoder.appearance.in_channels // places)]
    for start in range(0, len(clips), BATCH):
        parts.append(torch.stack(encoder.features(torch.from_numpy(clips[start : start + BATCH]))))
    return torch.cat(parts, dim=1)


def _task(encoded: list[Encoded], index: int) -> VideoTask:
    far = [other for position, other in enumerate(encoded) if abs(position - index) > 1]
    beside = [other for position, other in enumerate(encoded) if abs(position - index) == 1]
    normal, copies = (torch.cat([getattr(one, part) for one in far], dim=1) for part in ("normal", "relit"))
    return VideoTask(normal, copies, torch.cat([one.normal for one in beside], dim=1), encoded[index])


class _Whitening:
    """Transform of features (2, n, places, features) to the encoder's whitened vectors (n, places, values)."""

    def __init__(self, normal: Tensor, dim: int, weight: float) -> None:
        self._parts = [
            (mean.float(), (scale * matrices).float())
            for values, size, scale in zip(normal.double(), (dim, MOTION_DIM), (1.0, weight), strict=True)
            for mean, matrices in [whitening_by_position(values, size)]
        ]

    def __call__(self, features: Tensor) -> Tensor:
        vectors = [
            torch.einsum("pkd,npd->npk", matrices, values - mean)
            for values, (mean, matrices) in zip(features, self._parts, strict=True)
        ]
        return torch.cat(vectors, dim=2)


def _whitening(
    task: VideoTask, *, dim: int = APPEARANCE_DIM, weight: float = MOTION_WEIGHT, copies: float = 0.5
) -> _Whitening:
    kept = task.relit[:, :: round(1 / copies)] if copies else task.relit[:, :0]
    return _Whitening(torch.cat([task.normal, kept], dim=1), dim, weight)


def _lengths(
    task: VideoTask, *, dim: int = APPEARANCE_DIM, weight: float = MOTION_WEIGHT, copies: float = 0.5
) -> Tensor:
    """Return the lengths (seconds, places) of the hour's whitened vectors."""
    vectors: Tensor = _whitening(task, dim=dim, weight=weight, copies=copies)(task.hour.judged)
    lengths: Tensor = vectors.norm(dim=2)
    return lengths


def _neighbours(task: VideoTask) -> Floats:
    """Return the mean over places of the distance to the fifth nearest normal appearance."""
    queries, reference = task.hour.judged[0].transpose(0, 1), task.normal[0].transpose(0, 1)
    nearest = torch.cdist(queries, reference).kthvalue(NEIGHBOURS, dim=2).values
    return _array(nearest.mean(dim=0))


def _averaged(scores: Floats, seconds: int) -> Floats:
    """Return the running mean of scores over the last `seconds`."""
    padded = np.concatenate([np.full(seconds - 1, scores[0]), scores])
    averaged: Floats = np.lib.stride_tricks.sliding_window_view(padded, seconds).mean(axis=1)
    return averaged


def _features(vectors: Tensor, encoder: VideoEncoder) -> Features:
    return PatchFeatures(vectors.contiguous(), grid=encoder.grid, pool=clip_scores)


def _array(scores: Tensor) -> Floats:
    return scores.double().numpy()


def _auroc_by_kind(task: VideoTask, scores: Floats) -> dict[str, float]:
    """Return AUROC in % by kind of event, against the normal frames of the hour."""
    kinds = task.hour.kinds
    return {
        name: round(100 * auroc(kinds[chosen] == kind, scores[chosen]), 1)
        for kind, name in enumerate(KINDS)
        for chosen in [(kinds == kind) | (kinds < 0)]
        if (kinds == kind).any()
    }


def _summary(tasks: list[VideoTask], scores: list[Floats]) -> str:
    """Return a text with the mean over kinds and hours, AUROC across hours, and the mean of each kind."""
    by_hour = [_auroc_by_kind(task, values) for task, values in zip(tasks, scores, strict=True)]
    drawn = [name for name in KINDS if any(name in figures for figures in by_hour)]
    by_kind = {name: float(np.mean([figures[name] for figures in by_hour if name in figures])) for name in drawn}
    is_event = np.concatenate([task.hour.kinds >= 0 for task in tasks])
    across = 100 * auroc(is_event, np.concatenate(scores))
    kinds = ", ".join(f"{name} {value:.0f}" for name, value in by_kind.items())
    return f"{np.mean(list(by_kind.values())):.1f}; across hours {across:.1f}; {kinds}"
