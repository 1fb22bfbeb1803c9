"""Development series for the choice of defaults, none from the labelled half of a benchmark set.

* `machines`: the training half of some machines of the Server Machine Dataset. The first 60 % are fitted on; the rest
  has injected anomalies, half as large as elsewhere because figures near 1 separate methods badly.
* `later`: the same series, fitted on the first 35 % and judged on the last 30 %, so that normal drift counts.
* `injected`: normal stretches of NAB and of the Tennessee Eastman process with injected anomalies.
* `faults`: faults of the Tennessee Eastman process.
* `nab`: labelled series of NAB.

Groups without data are skipped.
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.data_folder import data_folder

GROUPS = ("machines", "later", "injected", "faults", "nab")
FAULTS, FAULT_START = (3, 8, 13, 18), 160
CLEAN_SERIES = (
    "artificialNoAnomaly/art_daily_small_noise",
    "artificialNoAnomaly/art_noisy",
    "realTraffic/occupancy_6005",
    "realKnownCause/nyc_taxi",
    "realAWSCloudwatch/ec2_cpu_utilization_24ae8d",
    "realTweets/Twitter_volume_GOOG",
)
MACHINE_STEP, MACHINE_ANOMALY_SCALE = 2, 0.5
NAB_STEP, NAB_TRAIN_SHARE, MAX_CLEAN = 4, 0.35, 6000
MARGIN = 50  # time points before the first injected anomaly

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SeriesTask:
    """Normal readings `train` (points, channels), judged readings `test`, and their `labels` (points,) bool."""

    group: str
    name: str
    train: Floats
    test: Floats
    labels: NDArray[np.bool_]


@dataclass(frozen=True)
class Stretch:
    """Stretch of a series into which an anomaly is injected.

    * `readings`: (length, channels), the normal readings
    * `mean`, `unit`: (channels,), mean and standard deviation of normal readings
    * `touched`: positions of the varying channels that the anomaly changes
    * `leading`: (channels, k), the strongest correlations as unit vectors
    * `elsewhere`: (length, channels), readings of another time
    * `foreign`: (length, channels), readings of another machine, or None
    """

    readings: Floats
    mean: Floats
    unit: Floats
    touched: NDArray[np.intp]
    leading: Floats
    elsewhere: Floats
    foreign: Floats | None


def tasks(group: str) -> Iterator[SeriesTask]:
    """Yield the tasks of a group; none if its data is absent."""
    return _GROUPS[group]()


def inject(
    readings: Floats, reference: Floats, rng: np.random.Generator, count: int, *, longest: int, foreign: Floats | None
) -> tuple[Floats, NDArray[np.bool_]]:
    """Inject `count` anomalies into normal `readings` (points, channels); return the series and its labels.

    The deviations of `reference`, normal readings to fit on, set the sizes of the anomalies. `longest` is the maximum
    length in points. `foreign`: readings of another machine; without it the kinds that need it are skipped.
    """
    unit, mean = reference.std(axis=0), reference.mean(axis=0)
    moving = np.flatnonzero(unit > 1e-6)
    standard = (reference - mean) / np.where(unit > 1e-6, unit, 1.0)
    leading = np.linalg.eigh(np.cov(standard.T).reshape(len(unit), -1))[1][:, ::-1][:, : min(4, len(moving))]
    kinds = [kind for kind, machines_only in _KINDS.items() if foreign is not None or not machines_only]
    out, labels = readings.copy(), np.zeros(len(readings), dtype=np.bool_)
    slots = np.linspace(MARGIN, len(readings), count + 1)
    for slot, room, index in zip(
        slots, np.diff(slots), rng.permutation(np.resize(np.arange(len(kinds)), count)), strict=False
    ):
        kind = kinds[index]
        length = int(rng.integers(1, 6)) if kind is _spike else int(np.exp(rng.uniform(np.log(10), np.log(longest))))
        length = max(1, min(length, int(0.7 * room)))
        start = int(rng.uniform(slot, slot + room - length))
        width = round(float(np.exp(rng.uniform(0.0, np.log(max(len(moving) / 2, 1.01))))))
        touched = rng.choice(moving, min(max(width, 1), len(moving)), replace=False)
        at, far = slice(start, start + length), int(rng.integers(0, len(readings) - length))
        other = (
            None
            if foreign is None
            else foreign[(origin := int(rng.integers(0, len(foreign) - length))) : origin + length]
        )
        stretch = Stretch(readings[at], mean, unit, touched, leading, readings[far : far + length], other)
        out[at] = kind(stretch, rng)
        labels[at] = True
    return out, labels


def _magnitude(stretch: Stretch, rng: np.random.Generator) -> Floats:
    """Return signed sizes (touched,) of one to four standard deviations."""
    signs = rng.choice([-1.0, 1.0], len(stretch.touched))
    size: Floats = signs * np.exp(rng.uniform(0.0, np.log(4.0))) * stretch.unit[stretch.touched]
    return size


def _with_offset(stretch: Stretch, amount: Floats) -> Floats:
    out = stretch.readings.copy()
    out[:, stretch.touched] += amount
    return out


def _shift(stretch: Stretch, rng: np.random.Generator) -> Floats:
    return _with_offset(stretch, _magnitude(stretch, rng))


def _spike(stretch: Stretch, rng: np.random.Generator) -> Floats:
    return _with_offset(stretch, 2.5 * _magnitude(stretch, rng))


def _ramp(stretch: Stretch, rng: np.random.Generator) -> Floats:
    rising = np.arange(1, len(stretch.readings) + 1)[:, np.newaxis] / len(stretch.readings)
    return _with_offset(stretch, 1.5 * _magnitude(stretch, rng) * rising)


def _noise(stretch: Stretch, rng: np.random.Generator) -> Floats:
    amount = 0.7 * _magnitude(stretch, rng)
    return _with_offset(stretch, rng.normal(size=(len(stretch.readings), len(amount))) * amount)


def _frozen(stretch: Stretch, rng: np.random.Generator) -> Floats:
    out = stretch.readings.copy()
    out[:, stretch.touched] = out[0, stretch.touched]
    return out


def _transplanted(stretch: Stretch, rng: np.random.Generator) -> Floats:
    out = stretch.readings.copy()
    out[:, stretch.touched] = stretch.elsewhere[:, stretch.touched]
    return out


def _constant_moved(stretch: Stretch, rng: np.random.Generator) -> Floats:
    """Shift a constant channel; if there is none, shift the touched channels."""
    still = np.flatnonzero(stretch.unit <= 1e-6)
    if not len(still):
        return _shift(stretch, rng)
    out = stretch.readings.copy()
    out[:, rng.choice(still)] += rng.uniform(0.02, 0.5)
    return out


def _burst(stretch: Stretch, rng: np.random.Generator) -> Floats:
    """Add a load that rises and falls along a leading correlation."""
    direction = stretch.leading[:, rng.integers(0, stretch.leading.shape[1])]
    length = len(stretch.readings)
    steps = np.arange(length)[:, np.newaxis]
    slope = max(1.0, length * rng.uniform(0.05, 0.4))
    shape = np.minimum(1.0, np.minimum(steps + 1, length - steps) / slope)
    size = rng.choice([-1.0, 1.0]) * rng.uniform(1.0, 4.0)
    out: Floats = stretch.readings + size * shape * direction / np.abs(direction).max() * stretch.unit
    return out


def _foreign_channels(stretch: Stretch, rng: np.random.Generator) -> Floats:
    """Replace a random part of the channels with those of another machine."""
    if stretch.foreign is None:
        return stretch.readings
    share = rng.uniform(0.05, 0.6)
    chosen = rng.random(stretch.readings.shape[1]) < share
    return np.where(chosen, stretch.foreign, stretch.readings)


def _blended(stretch: Stretch, rng: np.random.Generator) -> Floats:
    """Blend 5 to 30 % of another machine's readings into all channels."""
    if stretch.foreign is None:
        return stretch.readings
    weight = rng.uniform(0.05, 0.3)
    out: Floats = (1.0 - weight) * stretch.readings + weight * stretch.foreign
    return out


_KINDS: dict[Callable[[Stretch, np.random.Generator], Floats], bool] = {  # True: for machines only
    _shift: False,
    _spike: False,
    _ramp: False,
    _noise: False,
    _frozen: False,
    _transplanted: False,
    _constant_moved: True,
    _burst: True,
    _foreign_channels: True,
    _blended: True,
}


def _machines() -> Iterator[SeriesTask]:
    yield from _machine_tasks("machines", train_share=0.6, test_share=0.4)


def _later() -> Iterator[SeriesTask]:
    yield from _machine_tasks("later", train_share=0.35, test_share=0.3)


def _machine_tasks(group: str, *, train_share: float, test_share: float) -> Iterator[SeriesTask]:
    normal = {path.stem: _loaded(path, "train") for path in sorted((data_folder() / "smd").glob("machine-*.npz"))}
    names = list(normal)
    for index, name in list(enumerate(names))[::MACHINE_STEP]:
        readings, foreign = normal[name], normal[names[(index + 2) % len(names)]]
        train, test = readings[: int(train_share * len(readings))], readings[-int(test_share * len(readings)) :]
        rng = np.random.default_rng([index, len(group)])
        injected, labels = inject(test, train, rng, 14, longest=400, foreign=foreign)
        yield SeriesTask(group, name, train, test + MACHINE_ANOMALY_SCALE * (injected - test), labels)


def _injected() -> Iterator[SeriesTask]:
    rng = np.random.default_rng(7)
    if (data_folder() / "tep" / "tep.npz").is_file():
        train, test = (_loaded(data_folder() / "tep" / "tep.npz", key) for key in ("d00_train", "d00_test"))
        yield SeriesTask("injected", "tep", train, *inject(test, train, rng, 5, longest=80, foreign=None))
    for name in CLEAN_SERIES:
        path = data_folder() / "nab" / "data" / f"{name}.csv"
        if path.is_file():
            values, labels = _nab_series(path)
            clean = values[~labels][:MAX_CLEAN]
            half = len(clean) // 2
            made = inject(clean[half:], clean[:half], rng, 6, longest=120, foreign=None)
            yield SeriesTask("injected", path.stem, clean[:half], *made)


def _faults() -> Iterator[SeriesTask]:
    path = data_folder() / "tep" / "tep.npz"
    for fault in FAULTS if path.is_file() else ():
        test = _loaded(path, f"d{fault:02d}_test")
        yield SeriesTask(
            "faults", f"{fault:02d}", _loaded(path, "d00_train"), test, np.arange(len(test)) >= FAULT_START
        )


def _nab() -> Iterator[SeriesTask]:
    names = [name for name, windows in sorted(_nab_windows().items()) if windows and not name.startswith("artificial")]
    for name in names[1::NAB_STEP]:
        values, labels = _nab_series(data_folder() / "nab" / "data" / name)
        cut = min(int(NAB_TRAIN_SHARE * len(values)), int(np.argmax(labels)) - 1)
        if cut >= 0.2 * len(values):
            yield SeriesTask("nab", Path(name).stem, values[:cut], values[cut:], labels[cut:])


def _nab_windows() -> dict[str, list[tuple[str, str]]]:
    path = data_folder() / "nab" / "labels" / "combined_windows.json"
    windows: dict[str, list[tuple[str, str]]] = json.loads(path.read_text()) if path.is_file() else {}
    return windows


def _nab_series(path: Path) -> tuple[Floats, NDArray[np.bool_]]:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    windows = _nab_windows().get(f"{path.parent.name}/{path.name}", [])
    labels = np.array([any(start[:19] <= row[0] <= end[:19] for start, end in windows) for row in rows])
    return np.array([[float(row[1])] for row in rows]), labels


def _loaded(path: Path, key: str) -> Floats:
    with np.load(path) as arrays:
        return np.asarray(arrays[key], dtype=np.float64)


_GROUPS: dict[str, Callable[[], Iterator[SeriesTask]]] = {
    "machines": _machines,
    "later": _later,
    "injected": _injected,
    "faults": _faults,
    "nab": _nab,
}
