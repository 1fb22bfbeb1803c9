"""Tiny data sets in every layout that the commands take, and how to run a command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.evaluation import runner, worker
from shared.cli import main
from shared.images import encode_png

QUICK = """
device = "cpu"
analyzers = ["knn"]
hidden = [16, 16]
[head]
steps = 60
batch_size = 64
perturbed = 2000
[image]
height = 64
width = 64
patches = 1000
[quantisation]
images = 10
[tolerances]
rank_correlation = 0.5
label_agreement = 0.5
auroc_difference = 0.5
"""

Vedette = Callable[..., int]


@pytest.fixture
def vedette(monkeypatch: pytest.MonkeyPatch) -> Vedette:
    """Return a function that runs a command and returns its exit code."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["vedette", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0)

    return run


class HereWorker:
    """A worker of benchmarks in this process: a process of its own imports PyTorch, ONNX and NNCF again for seconds."""

    def ask(self, request: dict[str, Any]) -> Any:
        return json.loads(json.dumps(worker.answer(json.loads(json.dumps(request)))))

    def close(self) -> None:
        pass


@pytest.fixture
def worker_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute the units of a benchmark in this process, after a thread of the runner has sent them as JSON."""
    monkeypatch.setattr(runner._WorkerPool, "_worker", lambda pool: HereWorker())


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of training settings that train in seconds."""
    path = tmp_path_factory.mktemp("config") / "quick.toml"
    path.write_text(QUICK)
    return path


def table(rows: int, anomalies: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (n, 4) and labels (n,); each anomaly is far off in one feature."""
    generator = np.random.default_rng(seed)
    mixing = np.array([[1.0, 0.5, 0.0, 0.0], [0.0, 1.0, 0.5, 0.0], [0.0, 0.0, 1.0, 0.5], [0.5, 0.0, 0.0, 1.0]])
    values = generator.normal(size=(rows, 4)) @ mixing
    labels = np.zeros(rows, dtype=int)
    labels[generator.permutation(rows)[:anomalies]] = 1
    values[labels == 1, generator.integers(0, 4, anomalies)] += 12.0
    return values, labels


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three sets: 120 rows, 1100 rows, and an unusable one."""
    folder = tmp_path_factory.mktemp("tables")
    for name, rows, anomalies in (("7_small", 120, 12), ("large", 1100, 50)):
        values, labels = table(rows, anomalies)
        np.savez(folder / f"{name}.npz", X=values, y=labels)
    np.savez(folder / "broken.npz", X=np.ones((30, 2)), y=np.full(30, 2))
    return folder


@pytest.fixture
def make_table() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Return a function that makes rows and labels."""
    return table


def wave(points: int, seed: int) -> np.ndarray:
    time = np.arange(points)
    noise = np.random.default_rng(seed).normal(scale=0.05, size=(points, 2))
    return np.column_stack([np.sin(time / 3), np.cos(time / 5)]) + noise


@pytest.fixture(scope="session")
def series_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    test, labels = wave(700, 1), np.zeros(700, dtype=int)
    for start, length in ((250, 30), (500, 12)):
        test[start : start + length, 0] += 2.0
        labels[start : start + length] = 1
    np.savez(folder / "pump.npz", train=wave(900, 0), test=test, label=labels)
    return folder


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of striped tiles; defects are white squares with masks."""
    folder = tmp_path_factory.mktemp("images") / "tiles"
    generator = np.random.default_rng(0)
    for part, count in (("train/good", 44), ("test/good", 8), ("test/hole", 8)):
        (folder / part).mkdir(parents=True)
        masks = folder / "ground_truth" / "hole"
        masks.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            stripes = 110 + 60 * np.sin(np.arange(64) / 3 + generator.uniform(0, 0.5))
            pixels = np.clip(stripes + generator.normal(scale=6, size=(64, 64)), 0, 255).astype(np.uint8)
            if part.endswith("hole"):
                top, left = generator.integers(0, 40, 2)
                pixels[top : top + 24, left : left + 24] = 255
                mask = np.zeros((64, 64), dtype=np.uint8)
                mask[top : top + 24, left : left + 24] = 255
                (masks / f"{index:03d}_mask.png").write_bytes(encode_png(mask))
            (folder / part / f"{index:03d}.png").write_bytes(encode_png(pixels[..., np.newaxis]))
    return folder.parent
