"""The benchmarks' protocols: from a folder of data sets to normal samples to learn from and labelled ones to judge.

ADBench as published for DTE, semi-supervised (Livernoche et al., "On Diffusion Modeling for Anomaly Detection", ICLR
2024, section 5): sets of fewer than 1000 rows are bootstrapped to 1000, of more than 50,000 sampled down to 50,000;
the first half of the normal rows in file order trains; the others and all anomalies are the test part. The bootstrap
puts copies of one row on both sides, so such sets are also judged as they are (`AS_THEY_ARE`).

Series: `train` is taken as normal, `test` with `label` is judged. Images: the MVTec AD layout. Video: `train/`, `eval/`
with a label table.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.training.samples.images import ImageData, find_images
from cloud.training.samples.videos import TEST_FOLDERS
from shared.errors import DataError, SettingsError
from shared.images import IMAGE_SUFFIXES
from shared.videos import VIDEO_SUFFIXES

PUBLISHED, AS_THEY_ARE = "published", "as_they_are"
SMALLEST, LARGEST = 1000, 50_000


@dataclass(frozen=True, slots=True)
class DataSet:
    """One set of a benchmark: its name in results and where it lies (a file, or a folder)."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Part:
    """Normal samples to learn from, and labelled ones to judge: rows (n, features) or readings (points, channels).

    `labels`: (test,) bool, true for anomalies.
    """

    train: NDArray[np.float64]
    test: NDArray[np.float64]
    labels: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ImagePart:
    """Good images to learn from; images to judge, with labels (true for defects) and the mask of each if it has one."""

    train: ImageData
    test: tuple[Path, ...]
    labels: NDArray[np.bool_]
    masks: tuple[Path | None, ...]


def find_sets(benchmark: str, folder: Path, wanted: Sequence[str] = ()) -> list[DataSet]:
    """The sets of a benchmark (`adbench`, `series`, `images`, `video`) in a folder, or those of them that are wanted.

    Names match whatever the case, with or without a leading number. Raises DataError if there are none, SettingsError
    for a wanted set there is not.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Name the one with the data sets with --data.")
    sets, more = _FINDERS[benchmark](folder)
    if not sets and not more:
        raise DataError(f"{folder}: holds nothing for this benchmark: {_LAYOUTS[benchmark]}.")
    if not wanted:
        return sets or more
    by_key = {_key(item.name): item for item in (*more, *sets)}
    by_key |= {_key(item.path.stem): item for item in (*more, *sets)}
    missing = [name for name in wanted if _key(name) not in by_key]
    if missing:
        known = ", ".join(item.name for item in (*sets, *more))
        raise SettingsError(f"--datasets: there is no {missing[0]!r} in {folder}; there are {known}.")
    return list({by_key[_key(name)].name: by_key[_key(name)] for name in wanted}.values())


def adbench_part(path: Path, variant: str, seed: int) -> Part:
    """One set under the published protocol, or as it is. Raises DataError if it cannot be used."""
    rows, labels = _rows_and_labels(path)
    if variant == PUBLISHED:
        # The legacy generator, as the published code draws.
        generator = np.random.RandomState(seed)
        if len(rows) < SMALLEST:
            chosen = generator.choice(len(rows), SMALLEST, replace=True)
            rows, labels = rows[chosen], labels[chosen]
        elif len(rows) > LARGEST:
            chosen = generator.choice(len(rows), LARGEST, replace=False)
            rows, labels = rows[chosen], labels[chosen]
    normal = np.flatnonzero(~labels)
    half = round(len(normal) / 2)
    if half < 2 or not labels.any():
        raise DataError(f"{path}: {len(normal)} normal rows and {int(labels.sum())} anomalies are too few to judge by.")
    test = np.concatenate([normal[half:], np.flatnonzero(labels)])
    return Part(rows[normal[:half]], rows[test], labels[test])


def is_small(path: Path) -> bool:
    """Whether the published protocol bootstraps this set."""
    return len(_rows_and_labels(path)[0]) < SMALLEST


def series_part(path: Path) -> Part:
    """One series with its separate test part. Raises DataError if it cannot be used."""
    arrays = _arrays(path, ("train", "test", "label"))
    train, test = (_as_rows(path, name, arrays[name]) for name in ("train", "test"))
    labels = _as_labels(path, "label", arrays["label"], len(test))
    if train.shape[1] != test.shape[1]:
        raise DataError(f"{path}: 'train' has {train.shape[1]} channels and 'test' has {test.shape[1]}.")
    if not labels.any() or labels.all():
        raise DataError(f"{path}: 'label' needs both 0 and 1.")
    return Part(train, test, labels)


def image_part(path: Path) -> ImagePart:
    """One folder in the MVTec AD layout. Raises DataError if it cannot be used."""
    data = find_images(path)
    if data.test_labels is None:
        raise DataError(f"{path}: needs train/good, test/good and test/<defect>, each with images.")
    masks = tuple(mask_of(path, image) for image in data.test)
    return ImagePart(
        ImageData(data.origin, data.good, data.held_out, notes=data.notes), data.test, data.test_labels, masks
    )


def mask_of(folder: Path, image: Path) -> Path | None:
    """The mask of a test image, `ground_truth/<defect>/<name>_mask.png` or of the same name; None without one."""
    place = folder / "ground_truth" / image.parent.name
    names = (f"{image.stem}{ending}{suffix}" for ending in ("_mask", "") for suffix in sorted(IMAGE_SUFFIXES))
    return next((place / name for name in names if (place / name).is_file()), None)


def _find_adbench(folder: Path) -> tuple[list[DataSet], list[DataSet]]:
    """The classical sets; and beside them, for those who ask by name, the encoded image sets."""
    root = folder / "adbench" if (folder / "adbench").is_dir() else folder
    if (root / "Classical").is_dir():
        classical = _npz_in(root / "Classical", ("X", "y"))
        others = [path for path in _npz_in(root, ("X", "y")) if path not in classical]
        return _named(classical, root), _named(others, root)
    return _named(_npz_in(root, ("X", "y")), root), []


def _find_series(folder: Path) -> tuple[list[DataSet], list[DataSet]]:
    root = folder / "smd" if (folder / "smd").is_dir() else folder
    return _named(_npz_in(root, ("train", "test", "label")), root), []


def _find_images(folder: Path) -> tuple[list[DataSet], list[DataSet]]:
    places = [folder, *sorted(entry for depth in ("*", "*/*") for entry in folder.glob(depth) if entry.is_dir())]
    found = [place for place in places if (place / "train" / "good").is_dir() and (place / "test").is_dir()]
    return _named(found, folder), []


def _find_video(folder: Path) -> tuple[list[DataSet], list[DataSet]]:
    places = [folder, *sorted(entry for entry in folder.glob("*") if entry.is_dir())]
    found = [
        place
        for place in places
        if any(entry.suffix.lower() in VIDEO_SUFFIXES for entry in (place / "train").glob("*"))
        and any((place / name).is_dir() for name in TEST_FOLDERS)
    ]
    return _named(found, folder), []


_FINDERS: dict[str, Callable[[Path], tuple[list[DataSet], list[DataSet]]]] = {
    "adbench": _find_adbench,
    "series": _find_series,
    "images": _find_images,
    "video": _find_video,
}
_LAYOUTS = {
    "adbench": ".npz files with arrays X and y",
    "series": ".npz files with arrays train, test and label",
    "images": "folders with train/good and test/<defect>",
    "video": "folders with train/, eval/ or test/, and a table of labels",
}


def _npz_in(folder: Path, needed: Sequence[str]) -> list[Path]:
    """The array files below a folder that hold these arrays."""
    return [path for path in sorted(folder.rglob("*.npz")) if set(needed) <= _names_in(path)]


def _names_in(path: Path) -> set[str]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return set(archive.files)
    except Exception:  # a damaged archive raises whatever zipfile, zlib or numpy think of it; it is no data set
        return set()


def _named(paths: Sequence[Path], root: Path) -> list[DataSet]:
    """Sets by their file's name without number; with the folder's where two would be alike."""
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


def _rows_and_labels(path: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    arrays = _arrays(path, ("X", "y"))
    rows = _as_rows(path, "X", arrays["X"])
    return rows, _as_labels(path, "y", arrays["y"], len(rows))


def _arrays(path: Path, needed: Sequence[str]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in needed}
    except Exception as error:  # as above
        raise DataError(f"{path}: cannot be read ({error}).") from None


def _as_rows(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.float64]:
    array = array[:, np.newaxis] if array.ndim == 1 else array
    if array.ndim != 2 or array.dtype.kind not in "fiub" or not array.size:
        raise DataError(f"{path}: {name!r} is {array.dtype} of shape {array.shape}, and rows of numbers are needed.")
    return array.astype(np.float64)


def _as_labels(path: Path, name: str, array: NDArray[Any], count: int) -> NDArray[np.bool_]:
    flat = array.ravel()
    if len(flat) != count or flat.dtype.kind not in "fiub" or not np.isin(flat, (0, 1)).all():
        raise DataError(f"{path}: {name!r} needs {count} labels, 0 for normal and 1 for anomalous.")
    return np.asarray(flat == 1)
