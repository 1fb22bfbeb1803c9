"""Workload of the agent benchmark: a bundle on disk, and samples that the agent's source repeats."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.evaluation.device.requirements import MODALITIES
from cloud.training import TrainingSettings, load_training_data, train_bundle
from cloud.training.progress import StageProgress
from shared.bundle import Bundle
from shared.diffusion.distillation import DistillationSettings
from shared.errors import DataError, SettingsError
from shared.home import trusted_key
from shared.images import encode_png
from shared.modalities import load_preprocessor, sample_type
from shared.modality import Modality
from shared.signing_keys import public_pem

TRAINING_ROWS, REPEATS = 8192, 4  # screening repeats the rows, to fill whole batches of windows
IMAGES, SIDE_PIXELS = 48, 256


@dataclass(frozen=True)
class Workload:
    """A bundle in an archive at `path`, signed by the key in the file `key`, and the samples at `source`."""

    bundle: Bundle
    path: Path
    key: Path
    source: Path

    @property
    def modality(self) -> Modality:
        """Modality of the bundle."""
        return Modality(self.bundle.manifest.modality)

    @property
    def kind(self) -> str:
        """Kind of samples: the modality and, for series, the size of the windows."""
        size = " x ".join(map(str, self.sample_shape))
        return f"{self.modality} {size}" if self.modality is Modality.SERIES else str(self.modality)

    @property
    def batch_size(self) -> int:
        """Batch size of the agent and of the bare engine."""
        return sample_type(self.modality).usual_batch_size(self.bundle.manifest.input)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one prepared sample: a row, a window, or an image of the graph's size."""
        spec = self.bundle.manifest.input
        if self.modality is Modality.IMAGE:
            return spec.image_height, spec.image_width, 3
        return (spec.window_length, len(spec.channels)) if spec.window_length else (len(spec.channels),)

    def shape(self, batch_size: int) -> list[int]:
        """Return the shape of a batch of engine inputs."""
        if self.modality is Modality.IMAGE:
            return [batch_size, *self.sample_shape]
        sample = np.zeros((1, *self.sample_shape), np.float32)
        return [batch_size, *load_preprocessor(self.bundle).prepare_for_engine(sample).inputs.shape[1:]]

    def write_graph(self, artefact: str, folder: Path) -> Path:
        """Write the graph of an artefact into a folder and return its path; tools of the engine read it."""
        graph = self.bundle.manifest.artefact(artefact).graph
        paths = [graph, graph.removesuffix(".xml") + ".bin"] if graph.endswith(".xml") else [graph]
        for path in paths:
            (folder / Path(path).name).write_bytes(self.bundle.read(path))
        return folder / Path(graph).name


def given_workload(bundle: Path, data: Path | None, key: Path | None, folder: Path) -> Workload:
    """Return the workload of a given bundle and its data.

    Raises SettingsError without data or for a modality that agents do not screen, DataError if the data does not exist,
    and BundleError if the bundle cannot be opened.
    """
    if data is None:
        raise SettingsError("--bundle needs --data: give the samples for the agent to screen.")
    if not data.exists():
        raise DataError(f"{data}: no such file or folder. Correct --data.")
    trusted = trusted_key(key)
    opened = Bundle.open(bundle, [trusted])
    modality = opened.manifest.modality
    if modality not in MODALITIES:
        raise SettingsError(
            f"{bundle}: the benchmark does not measure {modality}; give a bundle of {', '.join(MODALITIES)}."
        )
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
    """Train a bundle briefly on synthetic samples and return it as a workload.

    The graph equals that of `vedette train`; speed does not depend on the weights. `window`: time points and channels
    of the windows of a series; rows of a table have as many columns as a window has channels. `is_quick` leaves out the
    corruption head of the image screener.
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
    # The image screener's graph contains the corruption head if that method is fused, which is the default.
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
    """Write correlated rows or readings to an NPZ file, or photograph crops to a folder, and return the path."""
    random = np.random.default_rng(0)
    if modality is not Modality.IMAGE:
        latent = random.normal(size=(TRAINING_ROWS, channels))
        if modality is Modality.SERIES:
            phases = np.arange(TRAINING_ROWS)[:, np.newaxis] / random.uniform(5.0, 60.0, channels)
            latent = np.sin(phases) + 0.1 * latent
        path = folder / "readings.npz"
        values = (latent @ random.normal(size=(channels, channels))).astype(np.float32)
        # Training reads `train` for series; agents, and training on rows, read `X`.
        np.savez(path, train=values, X=np.tile(values, (REPEATS, 1)) if modality is Modality.SERIES else values)
        return path
    from skimage import data

    bricks, target = data.brick(), folder / "bricks"
    target.mkdir()
    for number in range(IMAGES):
        top, left = random.integers(0, 512 - SIDE_PIXELS, 2)
        crop = bricks[top : top + SIDE_PIXELS, left : left + SIDE_PIXELS, np.newaxis]
        (target / f"{number:03}.png").write_bytes(encode_png(np.ascontiguousarray(crop)))
    return target
