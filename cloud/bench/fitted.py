"""Bundles of the analysis benchmark, and samples that they judge.

Rows have the default analyzers. Images have the encoder, whose network takes most of the time, and an analyzer that is
fitted in seconds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.bench.workloads import FILLER, IMAGE_SIDE_PIXELS, bench_manifest, jpeg
from cloud.methods.encoders import encoder_bytes
from cloud.training.analysis import AnalysisOptions, fit_analysis
from cloud.training.encoders import fit_image_encoder
from cloud.training.progress import StageProgress
from shared.bundle import ENCODER_FILE, REFERENCE_FILE, Bundle, InputSpec, npz_bytes, sign
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from shared.samples import Values

FEATURES, ROWS, JUDGED_ROWS = 20, 2000, 4096
IMAGE_METHODS = ("knn",)
GRAPH_SIDE_PIXELS = 128
IMAGES, JUDGED_IMAGES, IMAGE_DIM = 24, 96, 16
EFFORT = 0.1  # of training steps: the speed of networks does not depend on their weights
ROW_BATCHES, IMAGE_BATCHES = (64, 256, 1024), (8, 32)


@dataclass(frozen=True, slots=True)
class BenchBundle:
    """Fitted bundle, samples that it judges, and the batch sizes of the bare loop; `encoded`: files of images."""

    name: str
    bundle: Bundle
    judged: Sequence[Values]
    encoded: Sequence[bytes]
    batch_sizes: tuple[int, ...]


def fitted_bundles(key: Ed25519PrivateKey, share: float, progress: StageProgress) -> Iterator[BenchBundle]:
    """Yield a bundle of rows and one of images; `share`: of the usual number of samples and training steps."""
    random = np.random.default_rng(0)
    progress("fitting the rows", 0.0)
    yield _rows(key, share, AnalysisOptions(device="cpu", effort=EFFORT * share), random)
    progress("fitting the images", 0.0)
    yield _images(key, share, AnalysisOptions(IMAGE_METHODS, device="cpu", effort=EFFORT * share), random)


def _rows(key: Ed25519PrivateKey, share: float, options: AnalysisOptions, random: np.random.Generator) -> BenchBundle:
    mixing = random.standard_normal((5, FEATURES))

    def drawn(count: int) -> list[Values]:
        rows = random.standard_normal((count, 5)) @ mixing + 0.3 * random.standard_normal((count, FEATURES))
        return list(rows.astype(np.float32))

    train, held_out = np.stack(drawn(max(300, int(ROWS * share)))), np.stack(drawn(max(150, int(ROWS * share / 4))))
    spec = InputSpec(channels=tuple(f"feature_{place}" for place in range(FEATURES)))
    preprocessor = fit_preprocessor(Modality.TABULAR, train, spec)
    analysis = fit_analysis(preprocessor, None, train, held_out, options).analysis
    reference = npz_bytes({"held_out": preprocessor.prepare(held_out).inputs})
    files = {**preprocessor.files(), **analysis.files(), REFERENCE_FILE: reference, FILLER: npz_bytes({})}
    bundle = sign(bench_manifest("bench-rows", Modality.TABULAR, spec), files, key)
    return BenchBundle("rows", bundle, drawn(max(128, int(JUDGED_ROWS * share))), (), ROW_BATCHES)


def _images(key: Ed25519PrivateKey, share: float, options: AnalysisOptions, random: np.random.Generator) -> BenchBundle:
    step = IMAGE_SIDE_PIXELS // GRAPH_SIDE_PIXELS
    train, held_out = (np.stack([jpeg(random)[0][::step, ::step] for _ in range(IMAGES)]) for _ in range(2))
    spec = InputSpec(image_height=GRAPH_SIDE_PIXELS, image_width=GRAPH_SIDE_PIXELS)
    preprocessor = fit_preprocessor(Modality.IMAGE, list(train), spec)
    encoder, _ = fit_image_encoder(train, generator=torch.Generator().manual_seed(0), dim=IMAGE_DIM)
    analysis = fit_analysis(preprocessor, encoder, train, held_out, options).analysis
    files = {**preprocessor.files(), **analysis.files(), ENCODER_FILE: encoder_bytes(encoder), FILLER: npz_bytes({})}
    bundle = sign(bench_manifest("bench-images", Modality.IMAGE, spec), files, key)
    judged = [jpeg(random) for _ in range(max(16, int(JUDGED_IMAGES * share)))]
    pixels, encoded = [values for values, _ in judged], [file or b"" for _, file in judged]
    return BenchBundle("images", bundle, pixels, encoded, IMAGE_BATCHES)
