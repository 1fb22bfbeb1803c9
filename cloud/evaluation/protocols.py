"""Benchmark protocols: find data sets in a folder and split each into training and labelled test samples.

ADBench follows the semi-supervised protocol published for DTE (Livernoche et al., "On Diffusion Modeling for Anomaly
Detection", ICLR 2024, section 5). Sets of fewer than 1000 rows are bootstrapped to 1000; sets of more than 50,000 rows
are sampled down to 50,000. The first half of the normal rows in file order is the training data; all other rows are the
test part. The bootstrap puts copies of one row on both sides, so such sets are also evaluated without it
(`WITHOUT_BOOTSTRAP`).

Series: `train` counts as normal, `test` has the labels `label`. Images: the MVTec AD layout. Video: `train/`, and
`eval/` with a label table.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.training.samples.images import ImageData, find_images, has_labelled_layout
from cloud.training.samples.videos import TEST_FOLDERS
from shared.errors import DataError, SettingsError
from shared.images import IMAGE_SUFFIXES
from shared.videos import VIDEO_SUFFIXES

PUBLISHED, WITHOUT_BOOTSTRAP = "published", "without_bootstrap"
MIN_ROWS, MAX_ROWS = 1000, 50_000  # of a set under the published protocol


@dataclass(frozen=True, slots=True)
class DataSet:
    """Data set of a benchmark: its name in results, and its file or folder."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class BenchmarkSplit:
    """Train-test split of a table or series.

    `train`: normal rows (n, features) or readings (time points, channels). `test`: the same layout. `labels`: (test,)
    bool, true for anomalies.
    """

    train: NDArray[np.float64]
    test: NDArray[np.float64]
    labels: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ImageSplit:
    """Train-test split of images: good training images; test images with labels (true for defects) and masks."""

    train: ImageData
    test: tuple[Path, ...]
    labels: NDArray[np.bool_]
    masks: tuple[Path | None, ...]


def find_sets(benchmark: str, folder: Path, wanted: Sequence[str] = ()) -> list[DataSet]:
    """Return the data sets of a benchmark (`adbench`, `series`, `images`, `video`, `labels`) in a folder.

    `wanted`: names of the sets to return. Where no name is equal, case, punctuation and a leading number do not matter.
    Raises DataError if the folder has no data set, and SettingsError for a wanted set that does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give the folder of the data sets with --data.")
    sets, more = _FINDERS[benchmark](folder)
    if not sets and not more:
        raise DataError(f"{folder}: no data sets for this benchmark, which reads {_LAYOUTS[benchmark]}.")
    if not wanted:
        return sets or more
    by_key = {_key(item.name): item for item in (*more, *sets)}
    by_key |= {_key(item.path.stem): item for item in (*more, *sets)}
    by_name = {item.name: item for item in (*more, *sets)}
    found = [by_name.get(name, by_key.get(_key(name))) for name in wanted]
    if None in found:
        known = ", ".join(item.name for item in (*sets, *more))
        raise SettingsError(
            f"--datasets: there is no {wanted[found.index(None)]!r} in {folder}. Data sets there: {known}."
        )
    return list(dict.fromkeys(item for item in found if item is not None))


def adbench_split(path: Path, variant: str, seed: int) -> BenchmarkSplit:
    """Split one table under the published protocol or without the bootstrap; raise DataError if it is unusable."""
    rows, labels = rows_and_labels(path)
    if variant == PUBLISHED:
        # The published code uses the legacy generator.
        generator = np.random.RandomState(seed)
        if len(rows) < MIN_ROWS:
            chosen = generator.choice(len(rows), MIN_ROWS, replace=True)
            rows, labels = rows[chosen], labels[chosen]
        elif len(rows) > MAX_ROWS:
            chosen = generator.choice(len(rows), MAX_ROWS, replace=False)
            rows, labels = rows[chosen], labels[chosen]
    normal = np.flatnonzero(~labels)
    half = round(len(normal) / 2)
    if half < 2 or not labels.any():
        raise DataError(
            f"{path}: {len(normal)} normal rows and {int(labels.sum())} anomalies are too few for an evaluation."
        )
    test = np.concatenate([normal[half:], np.flatnonzero(labels)])
    return BenchmarkSplit(rows[normal[:half]], rows[test], labels[test])


def is_table(path: Path) -> bool:
    """Return whether a file holds a table, rather than a series."""
    return {"X", "y"} <= _names_in(path)


def is_small(path: Path) -> bool:
    """Return whether the published protocol bootstraps this set."""
    return len(rows_and_labels(path)[0]) < MIN_ROWS


def series_split(path: Path) -> BenchmarkSplit:
    """Split one series into its training and test part; raise DataError if it is unusable."""
    arrays = arrays_in(path, ("train", "test", "label"))
    train, test = (_as_rows(path, name, arrays[name]) for name in ("train", "test"))
    labels = _as_labels(path, "label", arrays["label"], len(test))
    if train.shape[1] != test.shape[1]:
        raise DataError(f"{path}: 'train' has {train.shape[1]} channels and 'test' has {test.shape[1]}.")
    if not labels.any() or labels.all():
        raise DataError(f"{path}: 'label' needs both 0 and 1.")
    return BenchmarkSplit(train, test, labels)


def image_split(path: Path) -> ImageSplit:
    """Split one folder in the MVTec AD layout; raise DataError if it is unusable."""
    data = find_images(path)
    if data.test_labels is None or len(set(data.test_labels.tolist())) < 2:
        raise DataError(f"{path}: needs train/good, test/good and test/<defect>, each with images.")
    masks = tuple(mask_of(path, image) for image in data.test)
    return ImageSplit(
        ImageData(data.origin, data.good, data.held_out, notes=data.notes), data.test, data.test_labels, masks
    )


def mask_of(folder: Path, image: Path) -> Path | None:
    """Return the mask file of a test image, or None.

    Masks are named `ground_truth/<defect>/<name>_mask.png` or `ground_truth/<defect>/<name>.png`.
    """
    place = folder / "ground_truth" / image.parent.name
    names = (f"{image.stem}{ending}{suffix}" for ending in ("_mask", "") for suffix in sorted(IMAGE_SUFFIXES))
    return next((place / name for name in names if (place / name).is_file()), None)


def _find_adbench(folder: Path) -> tuple[list[DataSet], list[DataSet]]:
    """Return the classical sets, and the encoded image sets, which run only when named."""
    root = folder / "adbench" if (folder / "adbench").is_dir() else folder
    if (root / "Classical").is_dir():
        classical = _npz_in(root / "Classical", ("X", "y"))
        others = [path for path in _npz_in(root, ("X", "y")) if path not in classical]
        return _named(classical, root), _named(others, root)
    return _named(_npz_in(root, ("X", "y")), root), []


def _find_series(folder: Path) -> tuple[list[DataSet], list[DataSet]]:
    root = folder / "smd" if (folder / "smd").is_dir() else folder
    return _named(_npz_in(root, ("train", "test", "label")), root), []


def _find_labels(folder: Path) -> tuple[list[DataSet], list[DataSet]]:
    """Return the tables and the series of a folder."""
    (tables, _), (series, _) = _find_adbench(folder), _find_series(folder)
    return _named(list(dict.fromkeys(item.path for item in (*tables, *series))), folder), []


def _find_images(folder: Path) -> tuple[list[DataSet], list[DataSet]]:
    candidates = [folder, *sorted(entry for depth in ("*", "*/*") for entry in folder.glob(depth) if entry.is_dir())]
    folders = [candidate for candidate in candidates if has_labelled_layout(candidate)]
    return _named(folders, folder), []


def _find_video(folder: Path) -> tuple[list[DataSet], list[DataSet]]:
    candidates = [folder, *sorted(entry for entry in folder.glob("*") if entry.is_dir())]
    folders = [
        candidate
        for candidate in candidates
        if any(entry.suffix.lower() in VIDEO_SUFFIXES for entry in (candidate / "train").glob("*"))
        and any((candidate / name).is_dir() for name in TEST_FOLDERS)
    ]
    return _named(folders, folder), []


_FINDERS: dict[str, Callable[[Path], tuple[list[DataSet], list[DataSet]]]] = {
    "adbench": _find_adbench,
    "series": _find_series,
    "images": _find_images,
    "labels": _find_labels,
    "video": _find_video,
}
_LAYOUTS = {
    "adbench": ".npz files with arrays X and y",
    "series": ".npz files with arrays train, test and label",
    "labels": ".npz files with arrays X and y, or train, test and label",
    "images": "folders with train/good and test/<defect>",
    "video": "folders with train/, eval/ or test/, and a table of labels",
}


def _npz_in(folder: Path, needed: Sequence[str]) -> list[Path]:
    """Return the array files below a folder that contain the `needed` arrays."""
    return [path for path in sorted(folder.rglob("*.npz")) if set(needed) <= _names_in(path)]


def _names_in(path: Path) -> set[str]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return set(archive.files)
    except Exception:  # damaged archives raise many types (zipfile, zlib, numpy); they are not data sets
        return set()


def _named(paths: Sequence[Path], root: Path) -> list[DataSet]:
    """Return sets named after their files without the leading number; duplicates also get their folders' names."""
    plain = [re.sub(r"^\d+_", "", _stem(path)) for path in paths]
    named = [
        DataSet(name if plain.count(name) == 1 else "/".join(path.relative_to(root).with_suffix("").parts), path)
        for name, path in zip(plain, paths, strict=True)
    ]
    return sorted(named, key=lambda item: item.name.lower())


def _stem(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.sub(r"^\d+_", "", name).lower())


def rows_and_labels(path: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the rows and labels of a table. Raises DataError for a file that cannot be used."""
    arrays = arrays_in(path, ("X", "y"))
    rows = _as_rows(path, "X", arrays["X"])
    return rows, _as_labels(path, "y", arrays["y"], len(rows))


def arrays_in(path: Path, needed: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the `needed` arrays of an .npz file by name. Raises DataError if one cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in needed}
    except Exception as error:  # many types, see _names_in
        raise DataError(f"{path}: cannot be read ({error}).") from None


def _as_rows(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.float64]:
    array = array[:, np.newaxis] if array.ndim == 1 else array
    if array.ndim != 2 or array.dtype.kind not in "fiub" or not array.size:
        raise DataError(f"{path}: {name!r} is {array.dtype} of shape {array.shape}, but must be rows of numbers.")
    return array.astype(np.float64)


def _as_labels(path: Path, name: str, array: NDArray[Any], count: int) -> NDArray[np.bool_]:
    flat = array.ravel()
    if len(flat) != count or flat.dtype.kind not in "fiub" or not np.isin(flat, (0, 1)).all():
        raise DataError(f"{path}: {name!r} needs {count} labels, 0 for normal and 1 for anomalous.")
    return np.asarray(flat == 1)
