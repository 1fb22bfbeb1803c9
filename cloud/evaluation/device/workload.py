"""What an agent is measured on: a bundle on disk, and samples that its source reads again and again."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.training import TrainingSettings, load_training_data, train_bundle
from cloud.training.progress import StageProgress
from shared.bundle import Bundle, public_pem
from shared.diffusion.distillation import DistillationSettings
from shared.errors import DataError, SettingsError
from shared.home import trusted_key
from shared.images import encode_png
from shared.modalities import load_preprocessor, sample_type
from shared.modality import Modality

ROWS, TIMES = 8192, 4  # to train on; so many times over to screen, enough for whole batches of windows
IMAGES, SIDE_PIXELS = 48, 256
SCREENED = (Modality.TABULAR, Modality.SERIES, Modality.IMAGE)


@dataclass(frozen=True)
class Workload:
    """A bundle in an archive at `path`, signed by the key in the file `key`, and the samples at `source`."""

    bundle: Bundle
    path: Path
    key: Path
    source: Path

    @property
    def modality(self) -> Modality:
        """That of the bundle."""
        return Modality(self.bundle.manifest.modality)

    @property
    def kind(self) -> str:
        """Of its samples: the modality, and of a series the size of its windows."""
        size = " x ".join(map(str, self.sample_shape))
        return f"{self.modality} {size}" if self.modality is Modality.SERIES else str(self.modality)

    @property
    def batch_size(self) -> int:
        """Samples at once, of the agent and of the bare engine."""
        return sample_type(self.modality).usual_batch_size(self.bundle.manifest.input)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Of one sample as it is prepared: a row, a window, or an image of the graph's size."""
        spec = self.bundle.manifest.input
        if self.modality is Modality.IMAGE:
            return spec.image_height, spec.image_width, 3
        return (spec.window_length, len(spec.channels)) if spec.window_length else (len(spec.channels),)

    def shape(self, batch_size: int) -> list[int]:
        """The shape of so many engine inputs."""
        if self.modality is Modality.IMAGE:
            return [batch_size, *self.sample_shape]
        sample = np.zeros((1, *self.sample_shape), np.float32)
        return [batch_size, *load_preprocessor(self.bundle).prepare_for_engine(sample).inputs.shape[1:]]

    def write_graph(self, artefact: str, folder: Path) -> Path:
        """Put an artefact's graph into a folder, for the engine's own tools; returns its path."""
        graph = self.bundle.manifest.artefact(artefact).graph
        paths = [graph, graph.removesuffix(".xml") + ".bin"] if graph.endswith(".xml") else [graph]
        for path in paths:
            (folder / Path(path).name).write_bytes(self.bundle.read(path))
        return folder / Path(graph).name


def given_workload(bundle: Path, data: Path | None, key: Path | None, folder: Path) -> Workload:
    """The user's own bundle and data. Raises SettingsError, DataError, BundleError."""
    if data is None:
        raise SettingsError("--bundle needs --data: what the agent shall screen.")
    if not data.exists():
        raise DataError(f"{data}: no such file or folder. Correct --data.")
    trusted = trusted_key(key)
    opened = Bundle.open(bundle, [trusted])
    modality = opened.manifest.modality
    if modality not in SCREENED:
        raise SettingsError(f"{bundle}: no agent screens {modality}; give a bundle of {', '.join(SCREENED)}.")
    (folder / "key.pem").write_bytes(public_pem(trusted))
    return Workload(opened, bundle.absolute(), folder / "key.pem", data.absolute())


def generated_workload(
    modality: Modality,
    window: tuple[int, int],
    folder: Path,
    config: Path | None,
    is_quick: bool,
    progress: StageProgress,
) -> Workload:
    """A bundle with the graph that `vedette train` makes, hardly trained, for speed does not depend on the weights.

    `window`: time points and channels of the windows of a series; rows have as many columns as a window channels. One
    made in a hurry (`is_quick`) lacks a part of the image screener.
    """
    key = Ed25519PrivateKey.generate()
    length, channels = window
    source = write_samples(modality, channels, folder)
    settings = TrainingSettings.load(config) if config is not None else _settings(modality, is_quick=is_quick)
    settings = settings.model_copy(update={"series": settings.series.model_copy(update={"window_length": length})})
    with contextlib.redirect_stdout(io.StringIO()):
        bundle = train_bundle(
            load_training_data(source, modality),
            settings,
            key,
            lambda stage, share: progress(f"{modality}: {stage}", share),
        )
    bundle.save(folder / "bench.vedette")
    (folder / "key.pem").write_bytes(public_pem(key.public_key()))
    return Workload(bundle, folder / "bench.vedette", folder / "key.pem", source)


def _settings(modality: Modality, *, is_quick: bool) -> TrainingSettings:
    # The corruption head is a part of the image screener's graph wherever that method is fused, as it is by default.
    has_corruption_head = modality is Modality.IMAGE and not is_quick
    return TrainingSettings.model_validate(
        {
            "name": "bench",
            "head": DistillationSettings(steps=200, perturbed=5000, max_reference=2000),
            "analyzers": ("local_corruption", "knn") if has_corruption_head else ("knn",),
            "quantisation": {"samples": 100, "images": 10},
            "tolerances": {"rank_correlation": 0.0, "label_agreement": 0.0, "auroc_difference": 1.0},
        }
    )


def write_samples(modality: Modality, channels: int, folder: Path) -> Path:
    """Correlated rows or readings of so many channels in an NPZ file, or crops of a photograph in a folder; where."""
    random = np.random.default_rng(0)
    if modality is not Modality.IMAGE:
        latent = random.normal(size=(ROWS, channels))
        if modality is Modality.SERIES:
            phases = np.arange(ROWS)[:, np.newaxis] / random.uniform(5.0, 60.0, channels)
            latent = np.sin(phases) + 0.1 * latent
        path = folder / "readings.npz"
        values = (latent @ random.normal(size=(channels, channels))).astype(np.float32)
        # By the names that trainings and agents look for: that of a series takes `train`, that of rows `X`.
        np.savez(path, train=values, X=np.tile(values, (TIMES, 1)) if modality is Modality.SERIES else values)
        return path
    from skimage import data

    bricks, target = data.brick(), folder / "bricks"
    target.mkdir()
    for number in range(IMAGES):
        top, left = random.integers(0, 512 - SIDE_PIXELS, 2)
        crop = bricks[top : top + SIDE_PIXELS, left : left + SIDE_PIXELS, np.newaxis]
        (target / f"{number:03}.png").write_bytes(encode_png(np.ascontiguousarray(crop)))
    return target
