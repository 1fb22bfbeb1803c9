"""Image files on disk, good ones and labelled ones.

| layout | meaning |
|---|---|
| `train/good/` | good images; also images in `train` itself |
| `validation/good/` | optional: good images to calibrate on (MVTec AD 2); without it, drawn from `train/good` |
| `test/good/`, `test/<defect>/` | optional: labelled images to measure on |
| `OK/` and `NG/` side by side | good images to train on, and labelled defects to measure on |
| a flat folder | good images |

`good`, `ok` and `normal`, in any case, are names of normal images. Any other name is a defect.

Images to calibrate on that are drawn from the training images make the bundle optimistic about a camera that takes
similar images. Each problem is one DataError that names the fault, the place and the remedy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.errors import DataError, SampleRejected
from shared.images import IMAGE_SUFFIXES, PixelRange, decode_image, decode_values, image_files, is_deep
from shared.modality import Modality

NORMAL_NAMES = frozenset({"good", "ok", "normal"})
CLIPPED_SHARE, WIDENED_SHARE = 0.001, 0.25


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


def read_image(path: Path, pixel_range: PixelRange | None = None) -> NDArray[np.uint8]:
    """Return the pixels of one file. Raises SampleRejected (a DataError) if they cannot be decoded.

    `pixel_range`: for deep images, the range of the bundle.
    """
    return decode_image(_bytes(path), origin=str(path), pixel_range=pixel_range)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Return the mask (height, width) in a file of any depth: true where it is not zero."""
    return np.asarray(decode_values(_bytes(path), origin=str(path)).max(axis=2) > 0)


def learn_pixel_range(paths: Sequence[Path]) -> PixelRange | None:
    """Return the range of deep images, learned from normal ones; None if they have 8 bits.

    The range of the values without the rarest CLIPPED_SHARE of each image is widened on both sides by WIDENED_SHARE, so
    that an anomaly may be hotter or colder than everything normal. Files that cannot be read are passed over, because
    the training reports them. Raises DataError for images of both kinds, or of one single value.
    """
    lows, highs, limits = [], [], None
    eight_bit = deep = None
    for path in paths:
        try:
            values = decode_values(_bytes(path), origin=str(path))
        except SampleRejected:
            continue
        if not is_deep(values):
            eight_bit = eight_bit or path
            continue
        deep = deep or path
        lows.append(float(np.quantile(values, CLIPPED_SHARE)))
        highs.append(float(np.quantile(values, 1 - CLIPPED_SHARE)))
        limits = np.iinfo(values.dtype) if values.dtype.kind in "iu" else None
    if deep is None:
        return None
    if eight_bit is not None:
        raise DataError(f"{eight_bit}: has 8-bit pixels, and {deep.name} is deeper. Give images of one kind.")
    low, high = min(lows), max(highs)
    if low == high:
        raise DataError(
            f"{deep}: every pixel is {low:g}, in this image and in all others, so there is nothing to learn."
        )
    margin = WIDENED_SHARE * (high - low)
    low, high = low - margin, high + margin
    return PixelRange(low, high) if limits is None else PixelRange(max(low, limits.min), min(high, limits.max))


def depth_note(paths: Sequence[Path], pixel_range: PixelRange) -> str:
    """Return the depth of the first readable image and the range that becomes 0 to 255, in words for a person."""
    for path in paths:
        try:
            kind = decode_values(_bytes(path), origin=str(path)).dtype
        except SampleRejected:
            continue
        depth = "float" if kind.kind == "f" else f"{'signed, ' if kind.kind == 'i' else ''}{8 * kind.itemsize} bits"
        low, high = (f"{value:,.{'6g' if kind.kind == 'f' else '0f'}}" for value in (pixel_range.low, pixel_range.high))
        return f"images: {depth}, values {low} to {high} are mapped to 0 to 255"
    raise DataError("No image can be read.")


def has_labelled_layout(folder: Path) -> bool:
    """Return whether a folder has good images to train on and a test part."""
    train = _subfolder(folder, "train")
    return train is not None and _has_normal_kind(train) and _subfolder(folder, "test") is not None


def find_images(path: Path, *, to_judge: bool = False) -> ImageData:
    """Find the images of a folder; raise DataError where there are none.

    `to_judge`: nothing is learned from them, so a folder of labelled folders without `train` is a test part.
    """
    if not path.is_dir():
        raise DataError(f"{path}: not a folder; images are a folder of good ones, or one with train/good in it.")
    train = _subfolder(path, "train")
    if to_judge and train is None and _subfolder(path, "test") is None and not image_files(path.iterdir())[0]:
        test, labels = _labelled(_kinds(path))
        if test:
            return ImageData(str(path), (), (), test, labels, _one_kind_notes(labels))
    root = train or path
    good, passed_over = _normal_images(root)
    if not good:
        raise DataError(
            f"{root}: holds no images ({' '.join(sorted(IMAGE_SUFFIXES))}), neither itself nor in a folder "
            f"{' or '.join(sorted(NORMAL_NAMES))}."
        )
    notes = [f"files passed over in {root.name} because they are no images: {passed_over}"] if passed_over else []
    others = [kind for kind in _kinds(root) if not _is_normal(kind)] if _has_normal_kind(root) else []
    validation = _subfolder(path, "validation")
    held_out = _normal_images(validation)[0] if validation is not None else ()
    test_folder = _subfolder(path, "test")
    if test_folder is None and train is None and others:  # OK and NG side by side
        test_kinds, others = others, []
    else:
        test_kinds = _kinds(test_folder) if test_folder is not None else []
    if others:
        names = ", ".join(kind.name for kind in others[:5])
        notes.append(f"not learned from, since only normal images are: {names} in {root.name}")
    test, labels = _labelled(test_kinds)
    notes += _one_kind_notes(labels)
    return ImageData(str(path), good, held_out, test, labels if test else None, tuple(notes))


def _labelled(kinds: Sequence[Path]) -> tuple[tuple[Path, ...], NDArray[np.bool_]]:
    """Return the images in these folders, and their labels by the folders' names."""
    images: list[Path] = []
    labels: list[bool] = []
    for kind in kinds:
        found, _ = image_files(kind.iterdir())
        images += found
        labels += [not _is_normal(kind)] * len(found)
    return tuple(images), np.array(labels, dtype=np.bool_)


def _one_kind_notes(labels: NDArray[np.bool_]) -> tuple[str, ...]:
    if not len(labels) or (labels.any() and not labels.all()):
        return ()
    return (f"the {len(labels)} test images are all {'anomalous' if labels[0] else 'normal'}, so there is no AUROC",)


def _normal_images(folder: Path) -> tuple[tuple[Path, ...], int]:
    """Return the normal images of a folder and the number of other files beside them.

    They lie in its folders of a normal name; in a folder without one, in the folder itself.
    """
    kinds = [kind for kind in _kinds(folder) if _is_normal(kind)]
    images: tuple[Path, ...] = ()
    passed_over = 0
    for place in kinds or [folder]:
        found, others = image_files(place.iterdir())
        images, passed_over = images + found, passed_over + others
    return images, passed_over


def _has_normal_kind(folder: Path) -> bool:
    return any(_is_normal(kind) for kind in _kinds(folder))


def _is_normal(kind: Path) -> bool:
    return kind.name.casefold() in NORMAL_NAMES


def _kinds(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, sorted by name."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))


def _subfolder(folder: Path, name: str) -> Path | None:
    """Return the folder of that name in any case; None if there is none."""
    return next((entry for entry in _kinds(folder) if entry.name.casefold() == name), None)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}).") from None
