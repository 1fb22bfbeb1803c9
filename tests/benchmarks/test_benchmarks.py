"""Tests that run each benchmark once on small synthetic data."""

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import (
    __main__,
    adaptive_depth,
    analysis_device,
    contamination,
    diffusion_cost,
    image_choices,
    image_scale,
    oddbench,
    open_pages,
    row_choices,
    series_choices,
    tracing,
    video_choices,
)
from benchmarks.data_folder import VARIABLE
from benchmarks.image_tasks import ImageTask
from benchmarks.row_tasks import RowTask
from benchmarks.series_tasks import SeriesTask, inject
from benchmarks.video_tasks import CAMERA
from cloud.modalities import cloud_modality
from cloud.training import TrainingSettings
from shared.modality import Modality
from tests.cloud.training.conftest import QUICK
from tests.cloud.training.video_files import frames, write_video

METHODS = ("knn", "pca")


def replaced(monkeypatch: pytest.MonkeyPatch, module: ModuleType, **values: object) -> None:
    for name, value in values.items():
        monkeypatch.setattr(module, name, value)


def only_quick_defaults(monkeypatch: pytest.MonkeyPatch, modality: Modality) -> None:
    monkeypatch.setattr(type(cloud_modality(modality)), "default_methods", METHODS)


def row_task() -> RowTask:
    """Return a task with one cluster of normal rows and a distant cluster of anomalies."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.standard_normal((300, 4)), 6.0 + rng.standard_normal((60, 4))])
    return RowTask("clouds0", rows, np.repeat([0, 1], [300, 60]))


def image_task(side: int = 64) -> ImageTask:
    """Return a task of noise images whose defect is a black square."""
    rng = np.random.default_rng(0)

    def noise(count: int) -> NDArray[np.uint8]:
        return rng.integers(100, 156, (count, side, side, 3), dtype=np.uint8)

    masks = np.zeros((6, side, side), np.bool_)
    masks[:, : side // 3, : side // 3] = True
    defective = np.where(masks[..., None], 0, noise(6)).astype(np.uint8)
    return ImageTask("noise", "noise", noise(44), noise(6), defective, ("square",) * 6, masks)


def test_choices_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, row_choices, development_tasks=lambda: [row_task()], DEFAULT=METHODS, MEMBERS=METHODS)
    replaced(monkeypatch, row_choices, FUSIONS=(METHODS,), QUICK=("knn",), RANGES=(3.0,))
    figures = row_choices.run()
    assert float(figures["knn"]) > 95
    assert float(figures["knn + pca"]) > 95
    assert float(figures["range_3_knn"]) > 95


def test_oddbench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run on three sets, of which one is too small and one is in each half."""
    task, folder = row_task(), tmp_path / "oddbench"
    folder.mkdir()
    normal = task.kinds == 0
    for name, rows in (("a", 200), ("b", 50), ("c", 200)):
        test = np.concatenate([task.rows[normal][rows:], task.rows[~normal]])
        labels = np.repeat([0, 1], [300 - rows, 60])
        arrays = {"train": task.rows[normal][:rows], "train_labels": np.zeros(rows), "test": test}
        np.savez(folder / f"{name}.npz", test_labels=labels, **arrays)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    replaced(monkeypatch, oddbench, DEFAULT=oddbench.NEIGHBOURS, WITHOUT_QUANTILES=("time_estimation",))
    replaced(monkeypatch, oddbench, FUSIONS=(oddbench.NEIGHBOURS,))
    figures = oddbench.run()
    for half in oddbench.HALVES:
        assert figures[half]["sets"] == 1
        values = {name: value for name, value in figures[half].items() if not name.endswith("sets")}
        assert all(float(figure) > 95 for text in values.values() for figure in text.split(" / ")), values
    assert figures["choosing"]["members.sets"] == 1


def test_contamination(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, contamination, packaged_tasks=lambda: [row_task()], adbench_tasks=list, SEEDS=1)
    only_quick_defaults(monkeypatch, Modality.TABULAR)
    replaced(monkeypatch, contamination, FUSED_TASKS=("clouds0",))
    figures = contamination.run()
    assert set(figures) == {"knn", "fused"}
    assert __main__.table(figures).count("untrimmed") >= 2


def test_choices_of_series(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    time = np.arange(900)[:, None] / np.array([5.0, 9.0, 14.0])
    readings = np.sin(time) + 0.05 * rng.standard_normal((900, 3))
    test, labels = inject(readings[500:], readings[:500], rng, 4, longest=20, foreign=None)
    task = SeriesTask("waves", "waves", readings[:500], test, labels)
    methods = ("score_norm", series_choices.PLAIN)
    replaced(monkeypatch, series_choices, GROUPS=("waves",), tasks=lambda group: [task], METHODS=methods, STEPS=5)
    replaced(monkeypatch, series_choices, FUSIONS=(methods,), SCREENED=())
    figures = series_choices.run(quick=True)
    assert all(0 < figures[name]["waves"] <= 1 for name in methods)


def test_choices_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainingSettings.model_validate({**QUICK, "image": {"patches": 1000}})
    replaced(monkeypatch, image_choices, GROUPS=("noise",), tasks=lambda group: [image_task()], HELD_OUT=20)
    replaced(monkeypatch, image_choices, METHODS=METHODS, FUSIONS=(METHODS,), TrainingSettings=lambda: settings)
    only_quick_defaults(monkeypatch, Modality.IMAGE)
    figures = image_choices.run(quick=True)
    assert figures["knn"]["noise"] > 0.9
    assert 0 <= figures["screener"]["noise"] <= 1


def test_scale_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the scaling alone: `image_choices` is replaced by a function that returns the image width."""
    replaced(monkeypatch, image_scale, LARGE_GROUPS=("noise",), tasks=lambda group: [image_task()], SHRUNK_PIXELS=32)
    replaced(monkeypatch, image_scale, figures_of=lambda task: {"width": task.train.shape[2]})
    figures = image_scale.run()
    assert {name: found["width"] for name, found in figures.items()} == {"noise shrunk": 32, "noise native": 64}


def test_analysis_on_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    options = analysis_device.AnalysisOptions
    replaced(monkeypatch, analysis_device, PASSES=1)
    replaced(
        monkeypatch, analysis_device, _data_sets=lambda divisor: [analysis_device._rows(np.random.default_rng(0), 200)]
    )
    replaced(monkeypatch, analysis_device, AnalysisOptions=lambda device: options(methods=METHODS, device=device))
    figures = analysis_device.run(quick=True)
    assert figures["tabular"]["samples_per_s"]["cpu"] > 0


def test_adaptive_depth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    task, folder = row_task(), tmp_path / "adbench" / "Classical"
    folder.mkdir(parents=True)
    np.savez(folder / "clouds.npz", X=task.rows, y=task.kinds)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    replaced(monkeypatch, adaptive_depth, SETS=("clouds", "absent"))
    methods = ("time_estimation", "denoising_likelihood")
    monkeypatch.setattr(type(cloud_modality(Modality.TABULAR)), "default_methods", methods)
    figures = adaptive_depth.run(quick=True)
    assert set(figures) == {"clouds"}
    found = figures["clouds"]
    assert found["samples"] == 75 + 60
    assert found["may_be_left_out"] == "denoising_likelihood"
    assert found["anomalous"] > 0
    assert (found["different_decisions"], found["wrong_bounds"]) == (0, 0)


def test_cost_of_diffusion(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainingSettings.model_validate(QUICK)
    replaced(monkeypatch, diffusion_cost, TrainingSettings=lambda: settings, ROWS=400, JUDGED=8, MANY=4, RESAMPLINGS=5)
    replaced(monkeypatch, diffusion_cost, packaged_tasks=lambda: [row_task()], TASKS=("clouds0",), DENOISER_STEPS=5)
    replaced(monkeypatch, diffusion_cost, EVALUATIONS=(diffusion_cost.STEPS,), SCORED_PER_LABEL=16)
    only_quick_defaults(monkeypatch, Modality.TABULAR)
    replaced(monkeypatch, diffusion_cost, BASELINES=())
    figures = diffusion_cost.run()
    assert figures["training"]["ratio"] > 0
    assert diffusion_cost.FEW in figures["solvers"]


def test_traces_are_measured_off_and_on() -> None:
    figures = tracing.run(quick=True)
    for part in figures.values():
        assert part.keys() == {"off", "unmarked", "marked"}
        assert all(value > 0 for value in part.values())


def test_open_pages_receive_new_verdicts_and_review_items() -> None:
    figures = open_pages.run(quick=True)
    for pages in figures.values():
        assert pages["updates_a_second"] > 0.1  # the clock does not count
        assert pages["cores"] > 0


def test_choices_of_video(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for hour in range(4):
        write_video(tmp_path / CAMERA / f"{hour}.avi", frames(70, seed=hour), frames_per_second=1.0)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    replaced(monkeypatch, video_choices, TEST_SECONDS=slice(0, 60), TRAIN_INTERVAL_S=4, choose_size=lambda *_: (64, 96))
    figures = video_choices.run(quick=True)
    assert {"baseline", "default_choice", "mean_over_5_s"} < figures.keys()
    assert float(figures["default_choice"].split(";")[0]) > 60  # AUROC in %


def test_video_choices_are_skipped_without_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert "skipped" in video_choices.run(quick=True)


def test_this_module_runs_every_benchmark() -> None:
    run = re.findall(r"\b(\w+)\.run\(", Path(__file__).read_text(encoding="utf-8"))
    assert set(run) == set(__main__.NAMES)
