"""Bundles of the fleet benchmark: real analyzers, fitted in seconds, and nothing for devices."""

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from cloud.bench.workloads import FILLER, bench_manifest
from cloud.methods.encoders import encoder_bytes
from cloud.training.analysis import AnalysisOptions, fit_analysis
from shared.bundle import ENCODER_FILE, Bundle, InputSpec, npz_bytes, sign
from shared.modalities import fit_preprocessor
from shared.modality import Modality

FEATURES = 8
METHODS = ("time_estimation", "knn")
EFFORT = 0.05
TRAINED, HELD_OUT, SENT = 500, 250, 512
ODD_SHARE = 0.1  # of the sent rows
IMAGE_SIDE, IMAGES = 64, 40


def table_rows(seed: int, count: int) -> NDArray[np.float32]:
    """Return correlated rows (count, FEATURES)."""
    mixing = np.random.default_rng(0).normal(size=(3, FEATURES))
    random = np.random.default_rng(seed)
    return (random.normal(size=(count, 3)) @ mixing + 0.1 * random.normal(size=(count, FEATURES))).astype(np.float32)


def sent_rows() -> NDArray[np.float32]:
    """Return the rows that devices send, a tenth of them far from the training data."""
    rows = table_rows(3, SENT)
    rows[: round(ODD_SHARE * SENT), 0] += 5.0
    return rows


def table_bundle(key: Ed25519PrivateKey) -> Bundle:
    """Return a bundle that judges rows of `table_rows`."""
    train, held_out = table_rows(1, TRAINED), table_rows(2, HELD_OUT)
    spec = InputSpec(channels=tuple(f"feature_{place}" for place in range(FEATURES)))
    preprocessor = fit_preprocessor(Modality.TABULAR, train, spec)
    options = AnalysisOptions(methods=METHODS, device="cpu", effort=EFFORT)
    analysis = fit_analysis(preprocessor, None, train, held_out, options).analysis
    return _signed("bench", Modality.TABULAR, spec, {**preprocessor.files(), **analysis.files()}, key)


def image_bundle(key: Ed25519PrivateKey) -> Bundle:
    """Return a bundle that judges small images of noise; images of any size are accepted for it."""
    import torch

    from cloud.training.encoders import fit_image_encoder

    images = np.random.default_rng(0).integers(96, 160, (2 * IMAGES, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    train, held_out = images[:IMAGES], images[IMAGES:]
    spec = InputSpec(image_height=IMAGE_SIDE, image_width=IMAGE_SIDE)
    preprocessor = fit_preprocessor(Modality.IMAGE, list(train), spec)
    encoder, _ = fit_image_encoder(train, generator=torch.Generator().manual_seed(0), dim=16)
    options = AnalysisOptions(methods=("knn",), device="cpu", effort=EFFORT)
    analysis = fit_analysis(preprocessor, encoder, train, held_out, options).analysis
    files = {**preprocessor.files(), **analysis.files(), ENCODER_FILE: encoder_bytes(encoder)}
    return _signed("bench-image", Modality.IMAGE, spec, files, key)


def another_version(bundle: Bundle, version: int, key: Ed25519PrivateKey) -> Bundle:
    """Return the same analyzers as another version of the bundle."""
    return sign(bundle.manifest.model_copy(update={"version": version}), bundle.files, key)


def _signed(name: str, modality: Modality, spec: InputSpec, files: dict[str, bytes], key: Ed25519PrivateKey) -> Bundle:
    return sign(bench_manifest(name, modality, spec), {**files, FILLER: npz_bytes({})}, key)
