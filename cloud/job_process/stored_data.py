"""Training data from the store: payloads of judged samples as rows, windows or image files."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cloud.evaluation.evaluation_data import EvaluationData
from cloud.job_process.split import kept_count, split_rows, split_windows
from cloud.jobs.messages import TrainingStart
from cloud.jobs.minimum import minimum_normals, shortage
from cloud.store import Store, open_store
from cloud.store.contents import load_payloads
from cloud.store.segments import LostValue
from cloud.store.training_samples import ChosenSamples, SampleSource, choose_samples, devices_of
from cloud.training.data import TableData, TrainingData
from cloud.training.modalities import load_training_data
from shared.errors import DataError, SampleRejected
from shared.images import encode_png
from shared.modality import Modality
from shared.samples import Values
from shared.wire import decode_payload
from vedette.v1 import sample_pb2

PART = 100  # payloads that are read at once
_SUFFIXES = {sample_pb2.PAYLOAD_ENCODING_PNG: ".png", sample_pb2.PAYLOAD_ENCODING_JPEG: ".jpg"}


@dataclass(frozen=True, slots=True)
class StoredData:
    """Data to train on, with its length of windows, and to evaluate on; `folder` of images, which holds both."""

    training: TrainingData
    window_length: int = 0
    window_stride: int = 0
    evaluation: EvaluationData | None = None
    folder: Path | None = None


def read_stored(start: TrainingStart, progress: Callable[[float], None]) -> StoredData:
    """Read the samples that a job names. Raises DataError where they are too few, or cannot be trained on."""
    return asyncio.run(_read(start, progress))


async def _read(start: TrainingStart, progress: Callable[[float], None]) -> StoredData:
    selection = start.data.stored
    assert selection is not None
    assert start.location is not None
    since_s = time.time() - selection.days * 86_400
    async with open_store(start.location) as store:
        async with store.reading() as connection:
            devices = await devices_of(
                connection, device_id=selection.device_id, group=selection.group, sites=start.sites
            )
            chosen = await choose_samples(connection, SampleSource(devices, selection.bundle_name, since_s))
        if chosen is None:
            raise DataError(f"There is no bundle named {selection.bundle_name!r} any more.")
        are_windows = chosen.modality is Modality.SERIES
        if sentence := shortage(chosen.modality, len(chosen.normals), are_windows=are_windows):
            raise DataError(sentence)
        if chosen.modality is Modality.VIDEO:
            raise DataError("Clips of the store cannot be trained on: upload the videos.")
        if chosen.modality is Modality.IMAGE:
            return await _images(store, chosen, start.folder / "data", progress)
        return await _vectors(store, chosen, start, progress)


async def _vectors(
    store: Store, chosen: ChosenSamples, start: TrainingStart, progress: Callable[[float], None]
) -> StoredData:
    """Return rows or windows of readings."""
    values: list[Values] = []
    labels: list[bool] = []
    shape = (chosen.spec.window_length, len(chosen.spec.channels))
    wanted = shape if chosen.modality is Modality.SERIES else shape[1:]

    def add(number: int, payload: sample_pb2.Payload, *, is_anomalous: bool) -> None:
        decoded = decode_payload(payload, chosen.modality)
        if decoded.shape == wanted:
            values.append(decoded)
            labels.append(is_anomalous)

    await _each(store, chosen, add, progress)
    known = np.array(labels, dtype=np.bool_)
    stacked = np.stack(values).astype(np.float64) if values else np.empty((0, *wanted))
    spec, length = chosen.spec, chosen.spec.window_length
    data = TableData(
        chosen.modality,
        start.options.name,
        spec.channels,
        stacked,
        np.asarray(np.isfinite(stacked).reshape(len(stacked), -1).all(axis=1) | spec.missing, dtype=np.bool_),
        known if known.any() else None,
        missing=spec.missing,
        mode_column=spec.mode_channel,
        categories=dict(spec.categories),
        decimal=spec.decimal,
        notes=(f"samples of {start.options.name} from the store, as devices sent them",),
    )
    if chosen.modality is Modality.SERIES:
        training, evaluation = split_windows(data, stacked[data.usable], known[data.usable])
        return StoredData(training, length, spec.window_stride, evaluation)
    split = split_rows(data, start.options.seed)
    return StoredData(split.training, evaluation=split.evaluation)


async def _images(store: Store, chosen: ChosenSamples, folder: Path, progress: Callable[[float], None]) -> StoredData:
    """Write whole images as files of a labelled folder; crops and previews are left out."""
    normals = chosen.normals
    count = kept_count(len(normals), minimum_normals(Modality.IMAGE)) if chosen.anomalies else 0
    tested = set(normals[len(normals) - count :])

    def add(number: int, payload: sample_pb2.Payload, *, is_anomalous: bool) -> None:
        if payload.HasField("crop"):
            return
        kind = "test/defect" if is_anomalous else "test/good" if number in tested else "train/good"
        target = folder / kind
        target.mkdir(parents=True, exist_ok=True)
        suffix = _SUFFIXES.get(payload.encoding)
        if suffix is not None:
            (target / f"{number}{suffix}").write_bytes(payload.data)
        else:
            pixels = decode_payload(payload, chosen.modality).astype(np.uint8)
            (target / f"{number}.png").write_bytes(encode_png(pixels))

    await _each(store, chosen, add, progress)
    if not (folder / "train" / "good").is_dir():
        raise DataError("None of the stored images is whole: devices sent crops or previews. Raise their byte budget.")
    return StoredData(load_training_data(folder, Modality.IMAGE), folder=folder)


async def _each(
    store: Store, chosen: ChosenSamples, add: Callable[..., None], progress: Callable[[float], None]
) -> None:
    """Call `add` with each payload that can be read, normal samples first."""
    anomalies = set(chosen.anomalies)
    numbers: Sequence[int] = [*chosen.normals, *chosen.anomalies]
    for first in range(0, len(numbers), PART):
        part = numbers[first : first + PART]
        found = await load_payloads(store, part)
        for number in part:
            payload = found.get(number)
            if payload is None or isinstance(payload, LostValue):
                continue
            try:
                add(number, payload, is_anomalous=number in anomalies)
            except SampleRejected:
                continue
        progress((first + len(part)) / len(numbers))
