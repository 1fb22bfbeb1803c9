"""The cloud's full analysis on the CPU and on a CUDA device: agreement and speed-up.

The default analyzers are fitted on synthetic normals of each kind: 10,000 rows of 50 correlated features, 6,000 windows
of 16 readings of 38 channels, and crops of 256 x 256 pixels of a photograph of bricks.

* `fit_seconds`: a complete fit; for images on the faster device only.
* `samples_per_s`: `Analysis.judge` on fresh samples, some of them disturbed, in batches as the service makes them, from
  NumPy arrays to verdicts; the best of three passes.
* `rank_correlation`: Spearman's rho of the fused scores of both devices, which judge by one state as it lies in a
  bundle.
* `largest_p_ratio`: the largest ratio between two p-values of one sample.
* `ratio`: CPU time over CUDA time. Without a CUDA device only the CPU is measured.

The encoder of images is always fitted on the CPU.

With TF32 in convolutions, PyTorch's default on CUDA, p-values of images were up to 1.7 and 1.2 times those of the CPU
in two runs (rank correlation 0.9999 and 0.9998), for 1.12 times the samples a second: `pick_device` switches it off.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from scipy.stats import spearmanr

from cloud.methods.encoders import PatchEncoder, encoder_bytes
from cloud.serving.analysis import Analysis
from cloud.training.analysis import AnalysisOptions, fit_analysis
from cloud.training.encoders import fit_image_encoder
from shared.bundle import ENCODER_FILE, Bundle, InputSpec, Manifest, sign
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from shared.preprocessing import Preprocessor
from shared.samples import Verdict

PASSES = 3
ROWS, FEATURES = 10_000, 50
WINDOWS, LENGTH, CHANNELS = 6_000, 16, 38
IMAGES, SIDE_PIXELS, FEATURE_DIM = 64, 256, 128


@dataclass(frozen=True)
class ModalitySamples:
    """Samples of one modality for fitting, calibration and judging; `batch` is the batch size of judging."""

    modality: Modality
    spec: InputSpec
    train: NDArray[Any]
    held_out: NDArray[Any]
    judged: NDArray[Any]
    batch: int


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return the figures by modality; `quick` uses a tenth of the samples."""
    torch.set_num_threads(os.cpu_count() or 1)
    has_cuda = torch.cuda.is_available()
    names = {"cpu": f"{os.cpu_count()} cores", "cuda": torch.cuda.get_device_name() if has_cuda else "none"}
    results: dict[str, Any] = {"devices": names}
    for data in _data_sets(10 if quick else 1):
        results[data.modality.value] = _measure(data, ["cpu", "cuda"] if has_cuda else ["cpu"])
        print(data.modality, results[data.modality.value], flush=True)
    return results


def _measure(data: ModalitySamples, devices: list[str]) -> dict[str, Any]:
    preprocessor = fit_preprocessor(data.modality, data.train, data.spec)
    encoder, encoder_s = None, 0.0
    if data.modality is Modality.IMAGE:
        generator = torch.Generator().manual_seed(0)
        (encoder, _), encoder_s = _timed(lambda: fit_image_encoder(data.train, generator=generator, dim=FEATURE_DIM))
    found: dict[str, Any] = {"fit_seconds": {}, "samples_per_s": {}}
    bundle: Bundle | None = None
    for device in devices[-1:] if data.modality is Modality.IMAGE else devices:
        analysis, seconds = _timed(partial(_fit, data, preprocessor, encoder, device))
        found["fit_seconds"][device] = round(seconds + encoder_s, 2)
        bundle = bundle or _bundle(data, preprocessor, encoder, analysis)
    assert bundle is not None
    verdicts_on: dict[str, list[Verdict]] = {}
    for device in devices:
        judge = partial(_judge, Analysis.load(bundle, device), data)
        verdicts_on[device] = judge()  # warm-up: exclude libraries loaded at first use from the timing
        seconds = min(_timed(judge)[1] for _ in range(PASSES))
        found["samples_per_s"][device] = float(f"{len(data.judged) / seconds:.4g}")
    if len(devices) == 2:
        on_cpu, on_cuda = (verdicts_on[device] for device in devices)
        scores = [[verdict.score for verdict in verdicts] for verdicts in (on_cpu, on_cuda)]
        p_cpu, p_cuda = (
            np.array([verdict.p_value for verdict in verdicts], np.float64) for verdicts in (on_cpu, on_cuda)
        )
        log_ratios = np.log(p_cpu / p_cuda)
        found |= {
            "ratio": round(found["samples_per_s"]["cuda"] / found["samples_per_s"]["cpu"], 2),
            "rank_correlation": round(float(spearmanr(*scores).statistic), 6),
            "largest_p_ratio": round(float(np.exp(np.abs(log_ratios).max())), 4),
        }
    return found


def _fit(data: ModalitySamples, preprocessor: Preprocessor, encoder: PatchEncoder | None, device: str) -> Analysis:
    on_device = encoder.to(device) if encoder is not None else None
    analysis = fit_analysis(preprocessor, on_device, data.train, data.held_out, AnalysisOptions(device=device)).analysis
    if encoder is not None:
        encoder.to("cpu")
    return analysis


def _bundle(
    data: ModalitySamples, preprocessor: Preprocessor, encoder: PatchEncoder | None, analysis: Analysis
) -> Bundle:
    """Return a signed bundle with the files that the service loads."""
    manifest = Manifest(
        name="bench",
        version=1,
        created_at="2026-01-01T00:00:00+00:00",
        modality=data.modality,
        input=data.spec,
        artefacts=(),
        preferred_artefact="",
        parity={},
        tolerances={},
        training={},
        files={},
    )
    files = {**preprocessor.files(), **analysis.files()}
    if encoder is not None:
        files[ENCODER_FILE] = encoder_bytes(encoder)
    return sign(manifest, files, Ed25519PrivateKey.generate())


def _judge(analysis: Analysis, data: ModalitySamples) -> list[Verdict]:
    verdicts: list[Verdict] = []
    for start in range(0, len(data.judged), data.batch):
        results = analysis.judge(list(data.judged[start : start + data.batch]))
        verdicts += [result for result in results if isinstance(result, Verdict)]
    return verdicts


def _data_sets(divisor: int) -> list[ModalitySamples]:
    random = np.random.default_rng(0)
    return [_rows(random, ROWS // divisor), _windows(random, WINDOWS // divisor), _images(random, IMAGES, divisor)]


def _rows(random: np.random.Generator, count: int) -> ModalitySamples:
    mixing = random.standard_normal((12, FEATURES))
    rows = random.standard_normal((2 * count, 12)) @ mixing + 0.3 * random.standard_normal((2 * count, FEATURES))
    judged = rows[int(1.25 * count) : int(1.25 * count) + 1024]
    judged[::4] += random.standard_normal((len(judged[::4]), FEATURES))
    spec = InputSpec(channels=tuple(f"x{number}" for number in range(FEATURES)))
    return ModalitySamples(Modality.TABULAR, spec, rows[:count], rows[count : int(1.25 * count)], judged, 256)


def _windows(random: np.random.Generator, count: int) -> ModalitySamples:
    time_points = np.arange(2 * count + LENGTH)[:, np.newaxis]
    waves = np.sin(time_points / random.uniform(5.0, 60.0, 6)) @ random.standard_normal((6, CHANNELS))
    readings = waves + 0.1 * random.standard_normal(waves.shape)
    windows = np.lib.stride_tricks.sliding_window_view(readings, LENGTH, axis=0).transpose(0, 2, 1)
    judged = windows[int(1.3 * count) : int(1.3 * count) + 1024].copy()
    judged[::4] += 0.5 * random.standard_normal(judged[::4].shape)
    names = tuple(f"c{number}" for number in range(CHANNELS))
    spec = InputSpec(channels=names, window_length=LENGTH, window_stride=1)
    return ModalitySamples(Modality.SERIES, spec, windows[:count], windows[count : int(1.25 * count)], judged, 256)


def _images(random: np.random.Generator, count: int, divisor: int) -> ModalitySamples:
    from skimage import data

    bricks = data.brick()

    def crop() -> NDArray[np.uint8]:
        top, left = random.integers(0, 512 - SIDE_PIXELS, 2)
        return np.repeat(bricks[top : top + SIDE_PIXELS, left : left + SIDE_PIXELS, np.newaxis], 3, axis=2)

    count = max(count // divisor, 24)
    train, held_out, judged = (np.stack([crop() for _ in range(size)]) for size in (count, max(24, count // 2), count))
    for image in judged[::4]:
        top, left = random.integers(0, SIDE_PIXELS - 32, 2)
        image[top : top + 24, left : left + 24] = 255 - image[top : top + 24, left : left + 24]
    spec = InputSpec(image_height=SIDE_PIXELS, image_width=SIDE_PIXELS)
    return ModalitySamples(Modality.IMAGE, spec, train, held_out, judged, 8)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started_s = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started_s
