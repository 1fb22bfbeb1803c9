"""Development images for the choice of defaults: normal images, some of them with drawn defects.

* `boards`: two-level scans of circuit boards, judged on boards of families that were not trained on.
* `cells`: solar cells.
* `textures`: crops of photographs (brick, gravel, grass, stained tissue), judged on a part that was not trained on.
* `scene`: frames of a fixed colour camera, hours apart.

No labelled test part is used. The drawing shares no code with the corruption that a detector learns from
(`cloud.methods.encoders.corruption`). Groups without data are skipped.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.data_folder import data_folder
from shared.errors import DataError

GROUPS = ("boards", "cells", "textures", "scene")
LARGE_GROUPS = ("modules", "panels")  # composed of sixteen cells or four boards
UNSEEN_FAMILIES = (("20085", "50600", "77000"), ("00041", "13000", "44000"))  # one task per tuple
MAX_TRAIN, MAX_GOOD, MAX_DEFECTIVE = 110, 50, 70
LARGE_TRAIN, LARGE_JUDGED = 100, 80
CELL_PIXELS, CROP_PIXELS, SCENE_PIXELS = 304, 160, (128, 256)
TRAINED_SHARE = 0.6  # share of a photograph's width

Image: TypeAlias = NDArray[np.uint8]
Region: TypeAlias = NDArray[np.bool_]
Random: TypeAlias = np.random.Generator


@dataclass(frozen=True)
class ImageTask:
    """Training and judged images (n, height, width, 3) of one development task.

    `train` and `good` are normal. `kinds` and `masks` (n, height, width) give the kind and the pixels of the defect in
    each defective image.
    """

    group: str
    name: str
    train: Image
    good: Image
    defective: Image
    kinds: tuple[str, ...]
    masks: Region


def tasks(group: str) -> Iterator[ImageTask]:
    """Yield the tasks of a group; none if its data is absent."""
    return _GROUPS[group]()


def _boards() -> Iterator[ImageTask]:
    paths = sorted((data_folder() / "deeppcb" / "train" / "good").glob("*"))
    for unseen in UNSEEN_FAMILIES if paths else ():
        train = _read([path for path in paths if not path.name.startswith(unseen)][:MAX_TRAIN])
        others = _read(_evenly([path for path in paths if path.name.startswith(unseen)], 2 * MAX_GOOD))
        yield _judged("boards", f"without {unseen[0]}", train, others[0::2], others[1::2], _board_defects)


def _cells() -> Iterator[ImageTask]:
    paths = sorted((data_folder() / "elpv" / "train" / "good").glob("*"))
    if paths:
        images = _read(paths, (CELL_PIXELS, CELL_PIXELS))[np.random.default_rng(0).permutation(len(paths))]
        train, rest = images[:150], images[150:]
        yield _judged("cells", "cells", train, rest[:MAX_GOOD], rest[MAX_GOOD:], _natural_defect)


def _modules() -> Iterator[ImageTask]:
    for cells in _cells():
        yield _composed("modules", cells, 4, _natural_defect)


def _panels() -> Iterator[ImageTask]:
    boards = next(_boards(), None)
    if boards is not None:
        yield _composed("panels", boards, 2, _board_defects)


def _composed(
    group: str, task: ImageTask, across: int, draw: Callable[[Image, Random], tuple[Image, str]]
) -> ImageTask:
    """Return a task of images composed of `across` x `across` normal images of another task.

    A defective image has a defect in one of its components.
    """
    rng = np.random.default_rng(11)

    def large(images: Image, count: int) -> Image:
        chosen = images[rng.integers(len(images), size=(count, across, across))]
        return np.concatenate(
            [np.concatenate([chosen[:, row, column] for column in range(across)], axis=2) for row in range(across)],
            axis=1,
        )

    good = large(task.good, LARGE_JUDGED)
    damaged, kinds = good[LARGE_JUDGED // 2 :].copy(), []
    height, width = task.good.shape[1:3]
    for image in damaged:
        row, column = rng.integers(across, size=2)
        place = (slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width))
        image[place], kind = draw(image[place], rng)
        kinds.append(kind)
    masks = np.abs(damaged.astype(np.int16) - good[LARGE_JUDGED // 2 :]).max(axis=3) > 8
    return ImageTask(
        group, group, large(task.train, LARGE_TRAIN), good[: LARGE_JUDGED // 2], damaged, tuple(kinds), masks
    )


def _textures() -> Iterator[ImageTask]:
    try:
        from skimage import data
    except ImportError:
        return
    for name in ("brick", "gravel", "grass", "immunohistochemistry"):
        photograph = getattr(data, name)()
        if photograph.ndim == 2:
            photograph = np.repeat(photograph[..., np.newaxis], 3, axis=2)
        boundary = round(TRAINED_SHARE * photograph.shape[1])
        train = _crops(photograph[:, :boundary], 80, np.random.default_rng(0))
        rest = _crops(photograph[:, boundary:], 100, np.random.default_rng(1))
        yield _judged("textures", name, train, rest[:40], rest[40:], _natural_defect)


def _scene() -> Iterator[ImageTask]:
    paths = sorted((data_folder() / "cctv_upcam" / "train").glob("*.mp4"))
    if paths:
        hours = [_frames(path, 20) for path in paths]
        train, rest = np.concatenate(hours[0::2]), np.concatenate(hours[1::2])
        yield _judged("scene", "scene", train, rest[0::2], rest[1::2], _natural_defect)


_GROUPS: dict[str, Callable[[], Iterator[ImageTask]]] = {
    "boards": _boards,
    "cells": _cells,
    "textures": _textures,
    "scene": _scene,
    "modules": _modules,
    "panels": _panels,
}


def _judged(
    group: str, name: str, train: Image, good: Image, damaged: Image, draw: Callable[[Image, Random], tuple[Image, str]]
) -> ImageTask:
    rng = np.random.default_rng(7)
    drawn = [draw(image, rng) for image in damaged[:MAX_DEFECTIVE]]
    defective = np.stack([image for image, _ in drawn])
    masks = np.abs(defective.astype(np.int16) - damaged[: len(defective)]).max(axis=3) > 8
    return ImageTask(group, name, train, good[:MAX_GOOD], defective, tuple(kind for _, kind in drawn), masks)


# Circuit boards. A hole, a bite or a break removes copper; a speck, a spur or a bridge is the same defect with the two
# levels exchanged.


def _board_defects(image: Image, rng: Random) -> tuple[Image, str]:
    """Draw three to twelve small defects like those of scanned boards."""
    copper = image[..., 0] > 127
    for _ in range(rng.integers(3, 13)):
        draw = (_draw_inside, _draw_at_edge, _draw_across)[rng.integers(3)]
        exchanged = rng.random() < 0.5
        area = ~copper if exchanged else copper
        area = area & ~draw(area, rng)
        copper = ~area if exchanged else area
    return np.repeat(np.where(copper, np.uint8(255), np.uint8(0))[..., np.newaxis], 3, axis=2), "board"


def _draw_inside(area: Region, rng: Random) -> Region:
    """Return the pixels of a hole in the area."""
    depth = cv2.distanceTransform(area.astype(np.uint8), cv2.DIST_L2, 5)
    radius = rng.uniform(2.0, 6.0)
    return _blob_at(_somewhere(depth > radius + 3, rng), radius, area.shape, rng)


def _draw_at_edge(area: Region, rng: Random) -> Region:
    """Return the pixels of a bite out of the area's edge."""
    depth = cv2.distanceTransform(area.astype(np.uint8), cv2.DIST_L2, 5)
    radius = rng.uniform(3.0, 8.0)
    return _blob_at(_somewhere((depth > 0) & (depth < 0.5 * radius), rng), radius, area.shape, rng)


def _draw_across(area: Region, rng: Random) -> Region:
    """Return the pixels of a cut through a narrow part of the area."""
    depth = cv2.distanceTransform(area.astype(np.uint8), cv2.DIST_L2, 5)
    ridge = (depth >= cv2.dilate(depth, np.ones((5, 5), np.uint8)) - 0.01) & (depth > 1.5) & (depth < 12)
    place = _somewhere(ridge, rng)
    cut = np.zeros(area.shape, dtype=np.uint8)
    if place is None:
        return cut > 0
    row, column = place
    half = float(depth[row, column]) + 2.5
    rows, columns = slice(max(0, row - 8), row + 9), slice(max(0, column - 8), column + 9)
    along = _main_direction(ridge[rows, columns])
    across = np.array([-along[1], along[0]]) * half
    centre = np.array([column, row], dtype=np.float64)
    ends = np.round(np.stack([centre - across, centre + across])).astype(np.int32)
    cv2.line(cut, ends[0].tolist(), ends[1].tolist(), 1, int(rng.integers(4, 13)))
    return cut > 0


def _main_direction(ridge: Region) -> NDArray[np.float64]:
    """Return the unit vector (x, y) of the main direction of the marked pixels."""
    rows, columns = np.nonzero(ridge)
    if len(rows) < 3:
        return np.array([1.0, 0.0])
    points = np.stack([columns - columns.mean(), rows - rows.mean()])
    direction: NDArray[np.float64] = np.linalg.eigh(points @ points.T)[1][:, 1]
    return direction


def _somewhere(allowed: Region, rng: Random) -> tuple[int, int] | None:
    """Return row and column of a random allowed pixel, or None if there is none."""
    places = np.flatnonzero(allowed)
    if not len(places):
        return None
    row, column = divmod(int(rng.choice(places)), allowed.shape[1])
    return row, column


def _blob_at(place: tuple[int, int] | None, radius: float, shape: tuple[int, ...], rng: Random) -> Region:
    """Return the pixels of an irregular ellipse around a place; none without a place."""
    blob = np.zeros(shape[:2], dtype=np.uint8)
    if place is not None:
        angles = np.linspace(0, 2 * math.pi, 12, endpoint=False)
        lengths = radius * rng.uniform(0.7, 1.3, 12)
        turn, squeeze = rng.uniform(0, math.pi), rng.uniform(0.5, 1.0)
        x, y = lengths * np.cos(angles), lengths * np.sin(angles) * squeeze
        across, down = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
        outline = np.stack([place[1] + across, place[0] + down], axis=1)
        cv2.fillPoly(blob, [np.round(outline).astype(np.int32)], 1)
    return blob > 0


# Other images: effects of scratches, dirt, wear, bending, and missing or foreign parts.


def _natural_defect(image: Image, rng: Random) -> tuple[Image, str]:
    """Draw one defect of a random kind."""
    kind = tuple(_NATURAL)[rng.integers(len(_NATURAL))]
    for _ in range(20):  # retry defects that are invisible, such as an erased part of a plain area
        damaged = np.clip(_NATURAL[kind](image, rng), 0, 255).astype(np.uint8)
        if (np.abs(damaged.astype(np.int16) - image).max(axis=2) > 15).sum() >= 12:
            break
    return damaged, kind


def _crack(image: Image, rng: Random) -> NDArray[Any]:
    side = min(image.shape[:2])
    steps = rng.integers(4, 12)
    heading = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.normal(0, 0.45, steps))
    lengths = rng.uniform(0.02, 0.06, steps) * side
    start = rng.uniform(0.2, 0.8, 2) * image.shape[1::-1]
    points = start + np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * lengths[:, np.newaxis], axis=0)
    line = np.zeros(image.shape[:2], dtype=np.uint8)
    cv2.polylines(line, [points.astype(np.int32)], False, 255, int(rng.integers(1, 4)), cv2.LINE_AA)
    return image * (1 - (line / 255.0 * rng.uniform(0.25, 0.7))[..., np.newaxis])


def _region(image: Image, rng: Random) -> NDArray[Any]:
    mask = _soft_disc(image, rng, 0.06, 0.2)
    factor = rng.uniform(0.55, 0.85) if rng.random() < 0.6 else rng.uniform(1.2, 1.6)
    return image * (1 + mask * (factor - 1))


def _spot(image: Image, rng: Random) -> NDArray[Any]:
    mask = _soft_disc(image, rng, 0.015, 0.04)
    colour = rng.uniform(0, 255, 3) if np.ptp(image, axis=2).max() > 8 else rng.uniform(0, 255)
    return image * (1 - mask) + mask * colour


def _stain(image: Image, rng: Random) -> NDArray[Any]:
    mask = _soft_disc(image, rng, 0.04, 0.12) * rng.uniform(0.3, 0.7)
    tint = rng.uniform(0.3, 1.3, 3) if np.ptp(image, axis=2).max() > 8 else rng.choice([0.5, 0.7, 1.4])
    return image * (1 - mask + mask * tint)


def _erased(image: Image, rng: Random) -> NDArray[Any]:
    side = min(image.shape[:2])
    radius = rng.uniform(0.03, 0.08) * side
    row, column = (rng.uniform(radius, length - radius) for length in image.shape[:2])
    blob = _blob_at((int(row), int(column)), radius, image.shape, rng)
    return np.asarray(cv2.inpaint(image, blob.astype(np.uint8), 3, cv2.INPAINT_TELEA))


def _blur(image: Image, rng: Random) -> NDArray[Any]:
    mask = _soft_disc(image, rng, 0.05, 0.15)
    return np.asarray(image * (1 - mask) + mask * cv2.blur(image, (int(rng.integers(3, 8)),) * 2))


def _foreign_part(image: Image, rng: Random) -> NDArray[Any]:
    """Paste a rotated piece of the image at another place."""
    height, width = image.shape[:2]
    side = min(height, width)
    radius = int(rng.uniform(0.03, 0.1) * side)
    turned = cv2.warpAffine(
        image,
        cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(30, 330), 1.0),
        (width, height),
        borderMode=cv2.BORDER_REFLECT,
    )
    place = int(rng.integers(radius, height - radius)), int(rng.integers(radius, width - radius))
    blob = cv2.blur(_blob_at(place, radius, image.shape, rng).astype(np.float32), (3, 3))[..., np.newaxis]
    return np.asarray(image * (1 - blob) + blob * turned)


def _bent(image: Image, rng: Random) -> NDArray[Any]:
    """Shift the pixels around a place in one direction."""
    height, width = image.shape[:2]
    mask = _soft_disc(image, rng, 0.05, 0.12)[..., 0]
    direction, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.02, 0.05) * min(height, width)
    across, down = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = (plane + np.float32(reach * part) * mask for plane, part in
            ((across, math.cos(direction)), (down, math.sin(direction))))  # fmt: skip
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


_NATURAL: dict[str, Callable[[Image, Random], NDArray[Any]]] = {
    "crack": _crack,
    "region": _region,
    "spot": _spot,
    "stain": _stain,
    "erased": _erased,
    "blur": _blur,
    "foreign part": _foreign_part,
    "bent": _bent,
}


def _soft_disc(image: Image, rng: Random, min_share: float, max_share: float) -> NDArray[np.float32]:
    """Return a mask (height, width, 1) near 1 inside an ellipse and near 0 outside.

    The radii of the ellipse are between these shares of the image's shorter side.
    """
    height, width = image.shape[:2]
    first, second = rng.uniform(min_share, max_share, 2) * min(height, width)
    row, column = rng.uniform(0.1, 0.9) * height, rng.uniform(0.1, 0.9) * width
    turn = rng.uniform(0, math.pi)
    down, across = np.mgrid[:height, :width]
    x = (across - column) * math.cos(turn) + (down - row) * math.sin(turn)
    y = (down - row) * math.cos(turn) - (across - column) * math.sin(turn)
    distance = np.sqrt((x / first) ** 2 + (y / second) ** 2)
    mask: NDArray[np.float32] = (1 / (1 + np.exp((distance - 1) * 6)))[..., np.newaxis].astype(np.float32)
    return mask


def _crops(photograph: Image, count: int, rng: Random) -> Image:
    rows = rng.integers(photograph.shape[0] - CROP_PIXELS + 1, size=count)
    columns = rng.integers(photograph.shape[1] - CROP_PIXELS + 1, size=count)
    return np.stack([photograph[r : r + CROP_PIXELS, c : c + CROP_PIXELS] for r, c in zip(rows, columns, strict=True)])


def _read(paths: list[Path], size: tuple[int, int] | None = None) -> Image:
    images = []
    for path in paths:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise DataError(f"{path}: not a readable image.")
        images.append(image if size is None else cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    return np.stack(images)


def _frames(path: Path, count: int) -> Image:
    """Return `count` evenly spaced frames of a video, enlarged to SCENE_PIXELS."""
    video = cv2.VideoCapture(str(path))
    frames = []
    for position in np.linspace(0, video.get(cv2.CAP_PROP_FRAME_COUNT) * 0.98, count).astype(int):
        video.set(cv2.CAP_PROP_POS_FRAMES, position)
        found, frame = video.read()
        if found:
            enlarged = cv2.resize(frame, SCENE_PIXELS[::-1], interpolation=cv2.INTER_LINEAR)
            frames.append(cv2.cvtColor(enlarged, cv2.COLOR_BGR2RGB))
    return np.stack(frames)


def _evenly(items: list[Path], max_count: int) -> list[Path]:
    return [items[index] for index in np.linspace(0, len(items) - 1, min(max_count, len(items))).astype(int)]
