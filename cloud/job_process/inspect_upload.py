"""Inspection of an upload: unpack it, find what it holds, and draw small pictures. Writes one Inspection as JSON.

It reads files of strangers, so it runs in a process of its own, with limits on memory, time and written bytes.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cloud.job_process.limits import limit_resources, lower_priority
from cloud.jobs.archives import unpack
from cloud.jobs.messages import (
    HEAD_COLUMNS,
    HEAD_ROWS,
    MAX_CELL,
    MAX_PREVIEWS,
    Column,
    Inspection,
    InspectionStart,
)
from cloud.jobs.minimum import upload_shortage
from cloud.jobs.options import MAX_COLUMNS
from cloud.modalities import table_modality
from shared.errors import DataError, VedetteError
from shared.images import PixelRange, announced_size, decode_values, encode_jpeg, is_deep, is_image_file, resize
from shared.parent_process import end_with_parent
from shared.videos import VIDEO_SUFFIXES

if TYPE_CHECKING:
    from cloud.training.settings import DataSettings
    from cloud.training.table_file import TableColumns

NICENESS, CPU_S, MEMORY_BYTES = 5, 600, 6 * 2**30
TABLE_SUFFIXES = (".csv", ".csv.gz", ".parquet", ".npz")
PREVIEW_SIDE = 160


def inspect(start: InspectionStart) -> Inspection:
    """Return what an upload holds. Raises DataError for one that cannot be used at all."""
    root = start.files
    files = _files_below(root)
    if len(files) == 1 and files[0].suffix.lower() == ".zip":
        unpack(
            files[0], start.content, max_files=start.max_files, max_bytes=start.max_bytes, free_bytes=start.free_bytes
        )
        root = start.content
        files = _files_below(root)
    tables = [path for path in files if path.name.lower().endswith(TABLE_SUFFIXES)]
    images = [path for path in files if is_image_file(path.name)]
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    base = root.parent
    if videos:
        return _videos(_top(root), videos, base)
    if images:
        return _images(_top(root), images, start, base)
    if len(tables) == 1:
        return _table(tables[0], base)
    if tables:
        raise DataError(f"{len(tables)} tables: upload one of them, or join them first. {_listed(tables)}")
    raise DataError(
        f"No file that can be trained on: {_listed(files)} Upload a table ({', '.join(TABLE_SUFFIXES)}), or images."
    )


def _table(path: Path, base: Path) -> Inspection:
    """Return the columns of a table with their roles, and how many normal rows it has."""
    from cloud.training.settings import DataSettings
    from cloud.training.table_file import read_columns
    from cloud.training.table_roles import TimeColumns, find_inputs, find_label

    settings = DataSettings(bad_rows="drop", missing="allow")
    if path.suffix.lower() == ".npz":
        return _arrays(path, base, settings)
    source = read_columns(path, settings)
    if len(source.names) > MAX_COLUMNS:
        raise DataError(f"{path.name}: {len(source.names)} columns, and the largest number is {MAX_COLUMNS}.")
    label = find_label(source, settings, ())
    times = TimeColumns.find(source, settings, [label])
    inputs, left_out = find_inputs(source, {label, *times.names}, settings)
    modality = table_modality(has_times=bool(times.names))
    normals = _normal_rows(source, label)
    notes = [*source.notes, *([f"column {label!r} is taken as the label"] if label else []), *times.notes, *left_out]
    texts = [name for name in inputs if name in source.texts]
    if texts:
        notes.append(f"{_quoted(texts)} holds text: choose one channel for each text, or name the inputs")
    roles = dict.fromkeys(inputs, "input") | dict.fromkeys(times.names, "time") | ({label: "label"} if label else {})
    return Inspection(
        modality=modality.value,
        data=str(path.relative_to(base)),
        rows=source.count,
        columns=tuple(
            Column.model_validate(
                {"name": name, "type": "text" if name in source.texts else "number", "role": roles.get(name, "unused")}
            )
            for name in source.names
        ),
        head=tuple(
            tuple(_cell(source, name, row) for name in source.names[:HEAD_COLUMNS])
            for row in range(min(HEAD_ROWS, source.count))
        ),
        normals=normals,
        anomalies=source.count - normals,
        notes=tuple(notes),
        problem=upload_shortage(modality, normals),
    )


def _arrays(path: Path, base: Path, settings: "DataSettings") -> Inspection:
    """Return what an .npz file holds, whose columns have no roles."""
    from cloud.training.data import read_table_data

    with np.load(path, allow_pickle=False) as archive:
        modality = table_modality(has_times="train" in archive.files)
    data = read_table_data(path, modality, settings)
    labels = data.labels if data.labels is not None else np.zeros(len(data.rows), dtype=np.bool_)
    normals = int(np.count_nonzero(data.usable & ~labels))
    return Inspection(
        modality=modality.value,
        data=str(path.relative_to(base)),
        rows=len(data.rows),
        columns=tuple(Column(name=name, type="number", role="input") for name in data.columns[:MAX_COLUMNS]),
        head=tuple(tuple(f"{value:g}" for value in row[:HEAD_COLUMNS]) for row in data.rows[:HEAD_ROWS]),
        normals=normals,
        anomalies=int(np.count_nonzero(labels)),
        notes=data.notes,
        problem=upload_shortage(modality, normals),
    )


def _normal_rows(source: "TableColumns", label: str) -> int:
    """Return the number of rows that their label calls normal; all without a label."""
    from cloud.training.tables import NORMAL_WORDS

    if label in source.numbers:
        return int(np.count_nonzero(source.numbers[label] == 0))
    return sum(text.lower() in NORMAL_WORDS for text in source.texts[label]) if label else source.count


def _images(folder: Path, images: list[Path], start: InspectionStart, base: Path) -> Inspection:
    """Return how many good and labelled images a folder has, after a look at each one's size."""
    from cloud.training.samples.images import find_images

    total = 0
    for path in images:
        total += _pixels(path)
        if total > start.max_pixels:
            raise DataError(f"The images have more than {start.max_pixels} pixels (training.upload_pixels).")
    found = find_images(folder)
    labels = found.test_labels if found.test_labels is not None else np.zeros(0, dtype=np.bool_)
    start.previews.mkdir(parents=True)
    previews, unreadable = [], 0
    chosen = [*found.good[: MAX_PREVIEWS - 4], *_anomalous(found.test, labels)[:4]]
    for number, path in enumerate(chosen):
        try:
            values = decode_values(path.read_bytes(), origin=path.name)
        except DataError:
            unreadable += 1
            continue
        name = f"{number}.jpg"
        (start.previews / name).write_bytes(encode_jpeg(_small(values), 80))
        previews.append(name)
    notes = list(found.notes)
    if unreadable:
        notes.append(f"{unreadable} of {len(chosen)} looked at cannot be read: choose to leave bad images out")
    good = len(found.good) + len(found.held_out)
    return Inspection(
        modality="image",
        data=str(folder.relative_to(base)),
        rows=len(images),
        normals=good,
        anomalies=int(np.count_nonzero(labels)),
        notes=tuple(notes),
        previews=tuple(previews),
        problem=upload_shortage(found.modality, good),
    )


def _videos(folder: Path, videos: list[Path], base: Path) -> Inspection:
    notes = (f"{len(videos)} videos; training cuts them into clips and says then whether they are enough",)
    return Inspection(modality="video", data=str(folder.relative_to(base)), rows=len(videos), notes=notes)


def _anomalous(paths: tuple[Path, ...], labels: np.ndarray) -> list[Path]:
    return [path for path, is_anomalous in zip(paths, labels, strict=True) if is_anomalous]


def _pixels(path: Path) -> int:
    """Return the number of pixels of an image, from its header where that says it."""
    with path.open("rb") as file:
        size = announced_size(file.read(2**18))
    if size is not None:
        return size[0] * size[1]
    try:
        values = decode_values(path.read_bytes(), origin=path.name)
    except DataError:
        return 0  # training refuses it, or leaves it out
    return int(values.shape[0] * values.shape[1])


def _small(values: np.ndarray) -> np.ndarray:
    """Return a small picture; deep values are stretched to 8 bits."""
    if is_deep(values):
        low, high = float(values.min()), float(values.max())
        values = PixelRange(low, max(high, low + 1e-9)).pixels(values)
    factor = min(1.0, PREVIEW_SIDE / max(values.shape[:2]))
    height, width = (max(1, round(side * factor)) for side in values.shape[:2])
    return resize(values[..., :3] if values.shape[2] > 1 else values, height, width)


def _files_below(folder: Path) -> list[Path]:
    """Return the plain files below a folder, sorted; links are passed over."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _top(folder: Path) -> Path:
    """Return the folder below which the files lie: a single folder around all of them is passed over.

    Not one that has a meaning of its own, such as `train` or `good`.
    """
    while True:
        entries = list(folder.iterdir())
        if len(entries) != 1 or not entries[0].is_dir() or entries[0].name.casefold() in ("train", "good", "ok"):
            return folder
        folder = entries[0]


def _cell(source: "TableColumns", name: str, row: int) -> str:
    if name in source.numbers:
        value = float(source.numbers[name][row])
        return "" if np.isnan(value) else f"{value:.6g}"
    return source.texts[name][row][:MAX_CELL] if name in source.texts else ""


def _listed(paths: list[Path]) -> str:
    if not paths:
        return "it is empty."
    kinds = Counter(path.suffix.lower() or "no suffix" for path in paths)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) + "."


def _quoted(names: list[str]) -> str:
    return ", ".join(map(repr, names[:4])) + (" ..." if len(names) > 4 else "")


def main() -> None:
    """Inspect as the file in the first argument says; write the result to the file in the second."""
    start = InspectionStart.model_validate_json(Path(sys.argv[1]).read_bytes())
    end_with_parent(start.parent_pid)
    lower_priority(NICENESS, 1)
    limit_resources(data_bytes=MEMORY_BYTES, cpu_s=CPU_S, file_bytes=start.max_bytes + 2**20)
    try:
        found = inspect(start)
    except VedetteError as error:
        found = Inspection(problem=_without_paths(str(error), start))
    except (OSError, MemoryError) as error:
        found = Inspection(problem=f"The upload cannot be read with the memory and disk there are: {error}"[:500])
    except Exception as error:  # a library that fails on a broken file
        found = Inspection(problem=f"The upload cannot be read ({type(error).__name__}: {str(error)[:200]}).")
    Path(sys.argv[2]).write_text(found.model_dump_json())


def _without_paths(text: str, start: InspectionStart) -> str:
    for folder in (start.content, start.files):
        text = text.replace(f"{folder}/", "").replace(str(folder), "the upload")
    return text


if __name__ == "__main__":
    main()
