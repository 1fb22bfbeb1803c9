"""Fixtures: bundles of each modality, trained once on small real data."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from cloud.training import TrainingSettings, load_training_data, train_bundle
from shared.bundle import Bundle
from shared.images import encode_png
from shared.modality import Modality
from shared.signing_keys import load_signing_key, new_signing_key
from tests.trained import cached_files

QUICK = {
    "head": {"steps": 250, "batch_size": 128, "perturbed": 8000},
    "hidden": (64, 64),
    "analyzers": ("knn",),
    "device": "cpu",
}


@dataclass(frozen=True)
class Trained:
    """Bundle, its signing key, and the reported `stages` of the training run."""

    key: Ed25519PrivateKey
    bundle: Bundle
    stages: list[tuple[str, float]]


def train(path: Path, modality: Modality, **settings: object) -> Trained:
    """Train a bundle on the data at `path`, or read the stored one for the same data and code."""
    torch.set_num_threads(1)
    chosen = TrainingSettings.model_validate({**QUICK, **settings})
    arguments = [path.name, _content(path), modality, chosen.model_dump(mode="json")]
    folder = cached_files("bundle", arguments, lambda folder: _train_into(folder, path, modality, chosen))
    key = load_signing_key(folder / "key.pem")
    stages = [(stage, share) for stage, share in json.loads((folder / "stages.json").read_text())]
    return Trained(key, Bundle.open(folder / "trained.vedette", [key.public_key()]), stages)


def _train_into(folder: Path, path: Path, modality: Modality, settings: TrainingSettings) -> None:
    key, stages = new_signing_key(folder / "key.pem"), []
    data = load_training_data(path, modality, settings.data)
    train_bundle(data, settings, key, lambda stage, share: stages.append((stage, share))).save(
        folder / "trained.vedette"
    )
    (folder / "stages.json").write_text(json.dumps(stages))


def _content(path: Path) -> str:
    """Return a digest of a file, or of all files in a folder."""
    files = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(path)).encode() + file.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="session")
def biopsy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the Wisconsin breast cancer set with benign as normal: 357 rows and 212 anomalies."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    path = tmp_path_factory.mktemp("biopsy") / "biopsy.npz"
    np.savez(path, X=data.data, y=data.target == 0)
    return path


@pytest.fixture(scope="session")
def tabular(biopsy_file: Path) -> Trained:
    return train(biopsy_file, Modality.TABULAR)


def pressure() -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return arterial pressure of the UCR archive around its only anomaly."""
    import pandas as pd

    aeon = pytest.importorskip("aeon")
    folder = Path(aeon.__file__).parent / "datasets" / "data" / "KDD-TSAD_135"
    table = pd.read_csv(next(folder.glob("*TEST.csv"))).to_numpy()
    return table[:, 1], table[:, 2] > 0


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    values, labels = pressure()
    path = tmp_path_factory.mktemp("artery") / "artery.npz"
    np.savez(path, train=values[:3000], test=values[3000:5500], label=labels[3000:5500])
    return train(path, Modality.SERIES)


@pytest.fixture(scope="session")
def brick_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write crops of a photographed brick wall; the defective images are crops of grass."""
    from skimage import data

    folder = tmp_path_factory.mktemp("bricks")
    generator = np.random.default_rng(0)
    parts = {"train/good": (data.brick(), 80), "test/good": (data.brick(), 20), "test/grass": (data.grass(), 20)}
    for part, (photograph, count) in parts.items():
        (folder / part).mkdir(parents=True)
        for index in range(count):
            top, left = generator.integers(0, 512 - 64, 2)
            crop = photograph[top : top + 64, left : left + 64, np.newaxis]
            (folder / part / f"{index:03d}.png").write_bytes(encode_png(np.ascontiguousarray(crop)))
    return folder


@pytest.fixture(scope="session")
def image(brick_folder: Path) -> Trained:
    size = {"height": 64, "width": 64, "patches": 4000}
    return train(brick_folder, Modality.IMAGE, image=size, quantisation={"images": 24})
