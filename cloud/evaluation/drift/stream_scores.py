"""Scores of a stream by a trained bundle and by the baselines, computed once and kept in a file.

`edge`: the artefact that devices prefer, on its engine. `fused`: the cloud's statistic. kNN and Isolation Forest are
fitted on 70 % of the training rows and calibrated on the others, as the bundle is.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from cloud.evaluation.baselines import baseline_scores
from cloud.evaluation.drift.streams import OrderedData, StreamSource
from cloud.evaluation.methods import BASELINE_WINDOW, row_blocks, training_table
from cloud.evaluation.runner import code_fingerprint
from cloud.evaluation.scoring import BundleScorer
from cloud.methods.fusion import Fusion
from cloud.serving.analysis import FUSED
from cloud.training.modalities import training_modality
from cloud.training.samples.windows import cut_windows
from cloud.training.settings import TrainingSettings
from cloud.training.train import train_bundle
from shared.bundle import FUSION_FILE, Bundle, npz_bytes
from shared.calibration import MIN_CALIBRATION_SIZE, Calibration
from shared.calibration_modes import CalibrationByMode
from shared.errors import DataError
from shared.files import write_durably

EDGE = "edge"
PROTOCOL = 1  # number of the form of streams and files
HELD_OUT_SHARE = 0.3
WINDOWS_PER_BLOCK = 4096

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StreamScores:
    """Scores of one stream by method, with the held-out scores that calibrate each.

    `labels`: (n,) bool. `scores`: (n,) by method. `held_out`: (m,) by method.
    """

    labels: NDArray[np.bool_]
    scores: dict[str, Floats]
    held_out: dict[str, Floats]

    def surprise(self, method: str) -> Floats:
        """Return -log p (n,) of a method's scores under its calibration of training."""
        return Calibration.fit(self.held_out[method]).surprise(self.scores[method])


def scores_of(source: StreamSource, settings: TrainingSettings, work: Path, *, quick: bool = False) -> StreamScores:
    """Return the scores of a stream, from the file of an earlier run or by training on it now.

    `quick`: those of the baselines alone. Raises DataError if its data cannot be used.
    """
    path = work / f"drift-{source.key}-{'quick-' if quick else ''}{_fingerprint(source, settings)}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as arrays:
            return _from_arrays({name: arrays[name] for name in arrays.files})
    stream = source.read()
    scored = _score_baselines(stream, settings) if quick else _score(stream, source.key, settings)
    arrays = {"labels": scored.labels}
    arrays |= {f"scores.{name}": values for name, values in scored.scores.items()}
    arrays |= {f"held_out.{name}": values for name, values in scored.held_out.items()}
    write_durably(path, npz_bytes(arrays))
    return scored


def _score(stream: OrderedData, origin: str, settings: TrainingSettings) -> StreamScores:
    bundle = train_bundle(training_table(stream.modality, origin, stream.train), settings, Ed25519PrivateKey.generate())
    samples, labels, normal = stream.rows, stream.labels, stream.train
    blocks = row_blocks(samples)
    if training_modality(stream.modality).has_time:
        length, stride = bundle.manifest.input.window_length, max(bundle.manifest.input.window_stride, 1)
        samples, labels = _windows(stream.rows, stream.labels, length, stride)
        normal = cut_windows(stream.train, length, stride)
        blocks = (samples[at : at + WINDOWS_PER_BLOCK] for at in range(0, len(samples), WINDOWS_PER_BLOCK))
    scored = BundleScorer(bundle, settings.device).score(blocks)
    scores = {EDGE: scored.methods[scored.edge].scores, FUSED: scored.methods[FUSED].scores}
    held_out = _held_out(bundle)
    flat, kept = normal.reshape(len(normal), -1), samples.reshape(len(samples), -1)[scored.kept]
    for name, (calibrating, found) in _baselines(flat, kept, settings.seed).items():
        scores[name], held_out[name] = found, calibrating
    return StreamScores(labels[scored.kept], scores, held_out)


def _score_baselines(stream: OrderedData, settings: TrainingSettings) -> StreamScores:
    """Return the scores of the baselines, on windows of BASELINE_WINDOW points for a series."""
    samples, labels, normal = stream.rows, stream.labels, stream.train
    if training_modality(stream.modality).has_time:
        samples, labels = _windows(stream.rows, stream.labels, BASELINE_WINDOW, BASELINE_WINDOW)
        normal = cut_windows(stream.train, BASELINE_WINDOW, BASELINE_WINDOW)
    if len(normal) < 2 * MIN_CALIBRATION_SIZE:
        raise DataError(f"{len(normal)} normal samples are too few: {2 * MIN_CALIBRATION_SIZE} are needed.")
    found = _baselines(normal.reshape(len(normal), -1), samples.reshape(len(samples), -1), settings.seed)
    return StreamScores(labels, {name: pair[1] for name, pair in found.items()}, {n: p[0] for n, p in found.items()})


def _windows(rows: Floats, labels: NDArray[np.bool_], length: int, stride: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the windows of a series, and whether a reading of each is anomalous; raises DataError if it has none."""
    if len(rows) < length:
        raise DataError(f"The stream has {len(rows)} time points, but a window has {length}.")
    by_window = np.lib.stride_tricks.sliding_window_view(labels, length).max(axis=1)[::stride]
    windows = cut_windows(rows, length, stride)
    return windows, by_window[: len(windows)]


def _held_out(bundle: Bundle) -> dict[str, Floats]:
    """Return the held-out scores of the preferred artefact and of the fusion."""
    manifest = bundle.manifest
    artefact = manifest.artefact(manifest.preferred_artefact)
    edge = CalibrationByMode.from_arrays(bundle.arrays(artefact.calibration)).rest
    fused = Fusion.from_arrays(bundle.arrays(FUSION_FILE)).fused.rest
    if edge is None or fused is None:
        raise DataError("Streams with operating modes are not part of this benchmark.")
    return {EDGE: edge.scores, FUSED: fused.scores}


def _baselines(normal: Floats, samples: Floats, seed: int) -> dict[str, tuple[Floats, Floats]]:
    """Return held-out scores and scores of the samples, by baseline."""
    held = np.zeros(len(normal), bool)
    size = max(MIN_CALIBRATION_SIZE, int(HELD_OUT_SHARE * len(normal)))
    held[np.random.default_rng(seed).permutation(len(normal))[:size]] = True
    found = baseline_scores(normal[~held], np.concatenate([normal[held], samples]), seed=seed)
    return {name: (scores[:size], scores[size:]) for name, scores in found.items()}


def _from_arrays(arrays: dict[str, Floats]) -> StreamScores:
    parts: dict[str, dict[str, Floats]] = {"scores": {}, "held_out": {}}
    for name, values in arrays.items():
        group, _, method = name.partition(".")
        if method:
            parts[group][method] = values
    return StreamScores(arrays["labels"].astype(bool), parts["scores"], parts["held_out"])


def _fingerprint(source: StreamSource, settings: TrainingSettings) -> str:
    """Return a hash of the data, the settings and the code outside this package, for which PROTOCOL stands."""
    status = source.path.stat()
    facts = [PROTOCOL, code_fingerprint(), settings.model_dump(mode="json"), status.st_size, status.st_mtime_ns]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
