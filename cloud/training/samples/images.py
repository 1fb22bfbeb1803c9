"""Image files on disk, good ones and labelled ones.

| layout | meaning |
|---|---|
| `train/good/` | good images |
| `validation/good/` | optional: good images to calibrate on (MVTec AD 2); without it, drawn from `train/good` |
| `test/good/`, `test/<defect>/` | optional: labelled images to measure on |
| a flat folder | good images |

Images to calibrate on that are drawn from the training images make the bundle optimistic about a camera that takes
similar images. Each problem is one DataError that names the fault, the place and the remedy.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError
from shared.images import IMAGE_SUFFIXES, decode_image
from shared.modality import Modality


@dataclass(frozen=True, slots=True)
class ImageData:
    """Image files by use.

    Attributes:
        origin: Path of the folder.
        good: Good images to train on.
        held_out: Good images that the user set apart to calibrate on; may be empty.
        test: Labelled images to measure on; may be empty.
        test_labels: Labels of `test`, true for defects.
        notes: Remarks for the report.
    """

    origin: str
    good: tuple[Path, ...]
    held_out: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    test_labels: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()
    modality: Modality = Modality.IMAGE


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of one file. Raises SampleRejected (a DataError) if they cannot be decoded."""
    try:
        return decode_image(path.read_bytes(), origin=str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}).") from None


def find_images(path: Path) -> ImageData:
    """Find the images of a folder; raise DataError where there are none."""
    if not path.is_dir():
        raise DataError(f"{path}: not a folder; images are a folder of good ones, or one with train/good in it.")
    folder = path / "train" / "good"
    if not folder.is_dir():
        good = _images_in(path)
        if not good:
            raise DataError(
                f"{path}: holds neither images ({' '.join(sorted(IMAGE_SUFFIXES))}) nor a folder train/good."
            )
        return ImageData(str(path), good)
    good = _images_in(folder)
    if not good:
        raise DataError(f"{folder}: holds no images ({' '.join(sorted(IMAGE_SUFFIXES))}).")
    set_apart = path / "validation" / "good"
    held_out = _images_in(set_apart) if set_apart.is_dir() else ()
    test: list[Path] = []
    labels: list[bool] = []
    for kind in sorted(entry for entry in (path / "test").glob("*") if entry.is_dir()):
        found = _images_in(kind)
        test += found
        labels += [kind.name != "good"] * len(found)
    if not any(labels) or all(labels):
        return ImageData(str(path), good, held_out)
    return ImageData(str(path), good, held_out, tuple(test), np.array(labels, dtype=np.bool_))


def _images_in(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES))
