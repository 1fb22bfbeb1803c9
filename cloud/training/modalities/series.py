"""Series of sensor readings in training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.methods import Need
from cloud.training.data import TableData, TrainingData, read_table_data
from cloud.training.judgement.vectors import COPIES, WINDOW_CORRUPTIONS, corrupted_vectors
from cloud.training.modalities.base import TrainingVectors
from cloud.training.samples import MIN_TRAIN, SampleRate, Split, modes_in, with_anomalies
from cloud.training.samples.perturbed_windows import perturbed_inputs
from cloud.training.samples.windows import choose_length, cut_windows, segments_of
from cloud.training.screeners import SeriesViews
from cloud.training.settings import DataSettings, TrainingSettings
from shared.bundle import InputSpec
from shared.calibration import MIN_CALIBRATION_SIZE
from shared.diffusion.distillation import DistillationSettings, Perturbation
from shared.diffusion.training import Progress
from shared.errors import DataError
from shared.modality import Modality
from shared.preprocessing import Preprocessor


class TrainingSeries(TrainingVectors):
    """Windows of readings, split in time: neighbouring windows are near copies."""

    name = Modality.SERIES
    distillation = DistillationSettings(steps=4000, batch_size=256, perturbed=60_000, max_seconds=90.0)
    folds = 1
    sample_word = "windows"
    is_ordered = True
    has_time = True
    untaught = frozenset({Need.WINDOWS})

    def find(self, path: Path, settings: DataSettings, *, to_judge: bool) -> TrainingData:
        """Read the readings at `path`. Raises DataError for data that cannot be used."""
        return read_table_data(path, self.name, settings, to_judge=to_judge)

    def form_settings(self, spec: InputSpec) -> dict[str, dict[str, int]]:
        """Return the length and the stride of windows."""
        return {"series": {"window_length": spec.window_length, "window_stride": spec.window_stride}}

    def split(
        self,
        data: TrainingData,
        settings: TrainingSettings,
        generator: np.random.Generator,
        progress: Progress | None,
    ) -> Split:
        """Train on the earlier normal readings and hold out the later ones."""
        assert isinstance(data, TableData)
        labels = data.labels if data.labels is not None else np.zeros(len(data.rows), dtype=np.bool_)
        segments = [data.rows[run] for run in segments_of(data.usable & ~labels)]
        length = settings.series.window_length or choose_length([_measured(segment, data) for segment in segments])
        stride = settings.series.window_stride or max(1, length // 4)
        total = sum(len(segment) for segment in segments)
        before, after = _cut_at(segments, round(total * (1 - settings.data.held_out_share)))
        train = _windows_of(before, length, settings.data.max_train)
        held_out = _windows_of(after, length, settings.data.max_held_out)
        if len(train) < MIN_TRAIN or len(held_out) < MIN_CALIBRATION_SIZE:
            raise DataError(
                f"{data.origin}: {total} usable normal readings give {len(train)} windows of {length} time points to "
                f"train on and {len(held_out)} to hold out, and {MIN_TRAIN} and {MIN_CALIBRATION_SIZE} are needed: "
                "give more readings, or a shorter --window-length."
            )
        test, test_labels = _test_windows(data, labels, length, stride, held_out)
        spec = InputSpec(
            channels=data.columns,
            window_length=length,
            window_stride=stride,
            missing=data.missing,
            categories=dict(data.categories),
            decimal=data.decimal,
            **modes_in(data.columns, data.mode_column, train[:, -1]),
        )
        return Split(spec, train, held_out, test, test_labels, data.notes, rate=_rate(data, stride))

    def perturbation(self, preprocessor: Preprocessor, train: NDArray[Any]) -> Perturbation | None:
        """Return a maker of graph inputs of windows whose readings are perturbed."""
        return perturbed_inputs(preprocessor, train)

    def corrupted_copies(self, normal: NDArray[Any], spec: InputSpec, seed: int) -> dict[str, NDArray[Any]]:
        """Return copies of normal windows with a stuck, shifted, noisy or delayed channel, or a spike."""
        return dict(corrupted_vectors(WINDOW_CORRUPTIONS, normal, spec, COPIES, seed))

    def input_stage(self, preprocessor: Preprocessor) -> SeriesViews | None:
        """Return the views of windows as a module."""
        return SeriesViews.of(preprocessor)


def _rate(data: TableData, stride: int) -> SampleRate | None:
    """Return the rate of windows `stride` time points apart; None if the time between readings is unknown."""
    if data.step_s <= 0:
        return None
    origin = f"the median step of {data.time_column!r} ({data.step_s:.4g} s) and the window stride ({stride})"
    return SampleRate(86_400 / (data.step_s * stride), origin)


def _measured(readings: NDArray[np.float64], data: TableData) -> NDArray[np.float64]:
    """Return readings (time points, channels) without the mode channel, missing values at their channel's mean."""
    kept = readings[:, [name != data.mode_column for name in data.columns]]
    observed = ~np.isnan(kept)
    mean = np.where(observed, kept, 0.0).sum(axis=0) / np.maximum(observed.sum(axis=0), 1)
    return np.where(observed, kept, mean)


def _test_windows(
    data: TableData, labels: NDArray[np.bool_], length: int, stride: int, held_out: NDArray[np.float64]
) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_] | None]:
    """Return windows of the test part with labels, or the held-out windows and those that touch an anomaly."""
    if data.test_rows is not None and data.test_labels is not None:
        windows = cut_windows(data.test_rows, length, stride)
        touched = cut_windows(data.test_labels[:, np.newaxis].astype(np.float64), length, stride).max(axis=(1, 2)) > 0
        usable = np.isfinite(windows) | (np.isnan(windows) if data.missing else np.False_)
        usable = usable.all(axis=(1, 2)) & ~np.isnan(windows).all(axis=(1, 2))
        windows, touched = windows[usable], touched[usable]
        return (windows, touched) if touched.any() and not touched.all() else (None, None)
    anomalous = [np.empty((0, length, data.rows.shape[1]))]
    for run in segments_of(data.usable):
        windows = cut_windows(data.rows[run], length, stride)
        if len(windows):
            touched = cut_windows(labels[run, np.newaxis].astype(np.float64), length, stride).max(axis=(1, 2)) > 0
            anomalous.append(windows[touched])
    return with_anomalies(held_out, np.concatenate(anomalous))


def _cut_at(
    segments: Sequence[NDArray[np.float64]], boundary: int
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Return the segments before and after the reading at `boundary`, which may cut one in two."""
    before, after = [], []
    for segment in segments:
        here = min(max(boundary, 0), len(segment))
        before.append(segment[:here])
        after.append(segment[here:])
        boundary -= len(segment)
    return before, after


def _windows_of(segments: Sequence[NDArray[np.float64]], length: int, max_windows: int) -> NDArray[np.float64]:
    """Return windows (n, length, channels) of the segments, as dense as `max_windows` allows."""
    count = sum(max(len(segment) - length + 1, 0) for segment in segments)
    step = max(1, -(-count // max_windows))
    return np.concatenate([cut_windows(segment, length, step) for segment in segments])
