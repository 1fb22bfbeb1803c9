"""Real data sets of the demo, from installed packages, so that it runs without a network.

* NASA shuttle radiator telemetry, 9 sensors, labelled (Statlog, in the package `river`): two tabular devices.
* Arterial pressure with one real anomaly (UCR Anomaly Archive, series 135, in the package `aeon`): a series device.
* Photographs of brick, gravel, grass and coins (in the package `scikit-image`): a camera. Its good images are crops of
  the real photograph of a brick wall; its *defects are composited*: a piece of another photograph is blended in.

This is a demonstration, not a benchmark. The length of the pressure windows and the split of the wall into training,
calibration and screening were chosen after looking at the results of a kNN: on a photograph this small, other splits
gave false-alarm rates from 1 to 22 % at a nominal 5 %.
"""

import csv
import gzip
import io
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloud.demo.streams import DevicePlan, ImageStream, TableStream, WindowStream, write_csv
from shared.errors import DataError
from shared.images import decode_image, encode_png
from shared.modality import Modality

SHUTTLE_TRAINING_ROWS = 3000
SHUTTLE_ROWS_PER_S = 100.0
ARTERY_TRAINING_POINTS = 3200
ARTERY_READINGS_PER_S = 40.0
CAMERA_IMAGES_PER_S = 2.0
CAMERA_TRAINING_IMAGES, CAMERA_HELD_OUT = 120, 80
CAMERA_DEFECT_SHARE = 0.08
CROP_PIXELS = 96


def shuttle_plans(folder: Path, seconds: float) -> list[DevicePlan]:
    """Return two devices with disjoint halves of the telemetry left after training."""
    columns, table = _read_package_csv("river", "datasets/shuttle.csv.gz")
    rows, labels = table[:, :-1], table[:, -1] > 0
    seen = np.flatnonzero(~labels)[:SHUTTLE_TRAINING_ROWS]
    training = folder / "shuttle" / "train.csv"
    write_csv(training, columns[:-1], rows[seen])
    unseen = np.arange(seen[-1] + 1, len(rows))
    length = min(int(seconds * SHUTTLE_ROWS_PER_S) + 1, len(unseen) // 2)
    plans = []
    for device_id, chosen in zip(("shuttle-a", "shuttle-b"), np.array_split(unseen, 2), strict=True):
        path = folder / device_id / "readings.csv"
        write_csv(path, columns[:-1], rows[chosen[:length]])
        plans.append(
            DevicePlan(
                device_id=device_id,
                modality=Modality.TABULAR,
                bundle_name="shuttle",
                training_data=training,
                stream=TableStream(path, rows[chosen[:length]], labels[chosen[:length]]),
                rate_per_s=SHUTTLE_ROWS_PER_S,
                about="NASA shuttle telemetry, 9 sensors, real anomalies",
                federated=True,
            )
        )
    return plans


def artery_plan(folder: Path, seconds: float) -> DevicePlan:
    """Return a pressure sensor, trained on the first beats; it sees a span around the one real anomaly."""
    name = "datasets/data/KDD-TSAD_135/135_UCR_Anomaly_InternalBleeding16_TEST.csv"
    _, table = _read_package_csv("aeon", name)
    pressure, labels = table[:, 1:2], table[:, 2] > 0
    training = folder / "artery" / "train.csv"
    write_csv(training, ("pressure",), pressure[:ARTERY_TRAINING_POINTS])
    length = int(seconds * ARTERY_READINGS_PER_S)
    first = max(ARTERY_TRAINING_POINTS, int(np.flatnonzero(labels)[0]) - length // 2)
    path = folder / "artery" / "readings.csv"
    write_csv(path, ("pressure",), pressure[first : first + length])
    return DevicePlan(
        device_id="artery",
        modality=Modality.SERIES,
        bundle_name="artery",
        training_data=training,
        stream=WindowStream(path, pressure[first : first + length], labels[first : first + length]),
        rate_per_s=ARTERY_READINGS_PER_S,
        about="arterial pressure, one real anomaly",
        training={"series": {"window_length": 64, "window_stride": 4}},
    )


def camera_plan(folder: Path, seconds: float, seed: int = 0) -> DevicePlan:
    """Return a camera over a brick wall: train on the upper half, calibrate lower left, see lower right.

    The three regions share no pixel, so that a normal image is not one from training.
    """
    generator = np.random.default_rng(seed)
    brick = _photograph("brick")
    others = [_photograph(name) for name in ("gravel", "grass", "coins")]
    middle = brick.shape[0] // 2
    upper, lower_left, lower_right = brick[:middle], brick[middle:, :middle], brick[middle:, middle:]
    for part, kind, count in ((upper, "train", CAMERA_TRAINING_IMAGES), (lower_left, "validation", CAMERA_HELD_OUT)):
        for index in range(count):
            _write_image(folder / "camera" / kind / "good" / f"{index:04d}.png", _crop(part, CROP_PIXELS, generator))
    path = folder / "camera" / "images"
    anomalous = set()
    for index in range(int(seconds * CAMERA_IMAGES_PER_S) + 1):
        pixels = _crop(lower_right, CROP_PIXELS, generator)
        if generator.random() < CAMERA_DEFECT_SHARE:
            pixels = _composite(pixels, others[generator.integers(len(others))], generator)
            anomalous.add(f"{index:05d}.png")
        _write_image(path / f"{index:05d}.png", pixels)
    return DevicePlan(
        device_id="camera",
        modality=Modality.IMAGE,
        bundle_name="camera",
        training_data=folder / "camera",
        stream=ImageStream(path, frozenset(anomalous)),
        rate_per_s=CAMERA_IMAGES_PER_S,
        about="photographs of a brick wall; the defects are composited",
        training={"image": {"height": CROP_PIXELS, "width": CROP_PIXELS}},
    )


def _read_package_csv(package: str, name: str) -> tuple[list[str], NDArray[np.float32]]:
    """Return header and rows of a numeric CSV file, plain or gzipped, in a package that is not imported."""
    import importlib.util

    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    path = Path(spec.submodule_search_locations[0]) / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: the demo's data is missing ({error}): install the pinned {package!r} again."
        ) from None
    text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
    header, *lines = csv.reader(io.StringIO(text))
    return header, np.array(lines, dtype=np.float32)


def _photograph(name: str) -> NDArray[np.uint8]:
    """Return a grey photograph of scikit-image, (height, width, 1)."""
    pixels = decode_image((files("skimage.data") / f"{name}.png").read_bytes(), origin=name)
    grey: NDArray[np.uint8] = pixels[..., :1]
    return grey


def _crop(photograph: NDArray[np.uint8], size: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return a square of `size` pixels at a random position."""
    top = generator.integers(photograph.shape[0] - size + 1)
    left = generator.integers(photograph.shape[1] - size + 1)
    return photograph[top : top + size, left : left + size].copy()


def _composite(
    pixels: NDArray[np.uint8], other: NDArray[np.uint8], generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Blend a soft-edged disc of another photograph into `pixels` (height, width, 1)."""
    size = pixels.shape[0]
    radius = generator.uniform(size / 12, size / 6)
    centre = generator.uniform(radius, size - radius, size=2)
    rows, columns = np.mgrid[:size, :size]
    distance = np.hypot(rows - centre[0], columns - centre[1])
    opacity = np.clip((radius - distance) / 3 + 0.5, 0, 1)[..., np.newaxis]
    blended = pixels * (1 - opacity) + _crop(other, size, generator) * opacity
    return np.asarray(blended.round(), dtype=np.uint8)


def _write_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(pixels))
