"""Ways in: each reads a form as a part of the product does, and returns its rows and the number of rejected ones."""

import csv
import io
import json
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from paho.mqtt.client import MQTTMessage
from pyarrow import parquet

from cloud.training.data import TableData
from cloud.training.modalities import load_training_data
from cloud.training.settings import DataSettings
from edge.settings.sources import MqttSettings, ReplaySettings, StdinSettings, TailSettings
from edge.sources import open_source
from edge.sources.base import Pacer
from edge.sources.mqtt import MqttSource
from edge.sources.stdin import StdinSource
from shared.bundle import InputSpec
from shared.modality import Modality
from tests.shared.tables.forms import CHANNELS, Form


def spec_of(form: Form) -> InputSpec:
    categories = {"mode": ("idle", "run")} if form.one_hot else {}
    return InputSpec(channels=form.channels, missing=form.missing, categories=categories, decimal=form.decimal)


def written(form: Form, folder: Path, suffix: str = "csv") -> Path:
    path = folder / f"table.{suffix}"
    if suffix == "csv":
        path.write_bytes(form.text.encode(form.encoding))
    else:
        names, rows = cells_of(form)
        columns = [pa.array(column) for column in zip(*typed(rows), strict=True)]
        named = [name or "__index_level_0__" for name in names]  # as pandas names an index without a name
        parquet.write_table(pa.Table.from_arrays(columns, named), path)
    return path


def cells_of(form: Form) -> tuple[list[str], list[list[str]]]:
    """Return the names and the cells of a form as another program reads them."""
    lines = form.text.splitlines()
    delimiter = ";" if ";" in lines[0] else ","
    names, *rows = csv.reader(lines, delimiter=delimiter)
    return [name.strip() for name in names], rows


def typed(rows: Sequence[Sequence[str]]) -> list[tuple[object, ...]]:
    """Return the rows with typed values; a column with any other text stays a column of texts."""
    columns = []
    for cells in zip(*rows, strict=True):
        values = [as_value(cell) for cell in cells]
        columns.append(cells if any(isinstance(value, str) for value in values) else values)
    return list(zip(*columns, strict=True))


def as_value(cell: str) -> object:
    """Return the typed value that a gateway or pandas has for a cell; the text if it has none."""
    words = {"": None, "NA": None, "true": True, "yes": True, "false": False, "no": False}
    if cell in words or cell.lower() in words:
        return words[cell if cell in words else cell.lower()]
    for read in (int, float, datetime.fromisoformat):
        try:
            return read(cell)
        except ValueError:
            continue
    return cell


def read_for_training(form: Form, path: Path, **more: object) -> TableData:
    values = {
        "missing": "allow" if form.missing else "refuse",
        "bad_rows": "drop",
        "table": form.table,
        "categories": "one_hot" if form.one_hot else "refuse",
    }
    settings = DataSettings.model_validate(values | more)
    data = load_training_data(path, Modality.TABULAR, settings, to_judge=True)
    assert isinstance(data, TableData)
    return data


def training(form: Form, folder: Path, suffix: str = "csv", **more: object) -> tuple[NDArray[np.float64], int]:
    data = read_for_training(form, written(form, folder, suffix), **more)
    if form.labels is not None:
        assert data.labels is not None
        assert np.count_nonzero(data.labels) == form.labels
    else:
        assert data.labels is None
    assert data.columns == form.channels
    return data.rows[data.usable], int(np.count_nonzero(~data.usable))


def evaluation(form: Form, folder: Path, suffix: str = "csv") -> tuple[NDArray[np.float64], int]:
    spec = spec_of(form)
    return training(form, folder, suffix, columns=spec.channels, category_values=spec.categories, categories="refuse")


def screened(batches: Any, form: Form, stop: threading.Event | None = None) -> tuple[NDArray[np.float64], int]:
    """Values and count of rejections; rows that the preprocessing rejects count as rejected."""
    rows: list[list[float]] = []
    rejected = 0
    for batch in batches:
        for row in np.asarray(batch.values).tolist():
            usable = not any(np.isinf(row)) and (form.missing or not any(np.isnan(row)))
            rows += [row] if usable else []
            rejected += not usable
        rejected += len(batch.rejections)
        total = len(form.expected) + form.rejected
        if stop is not None and not isinstance(form.expected, str) and len(rows) + rejected >= total:
            stop.set()
    return np.array(rows, dtype=np.float64), rejected


def replay(form: Form, folder: Path, suffix: str = "csv") -> tuple[NDArray[np.float64], int]:
    path = written(form, folder, suffix)
    settings = ReplaySettings(id="s", kind="replay", bundle=Path("b"), path=path, table=form.table)
    return screened(open_source(settings, Modality.TABULAR, spec_of(form), threading.Event()).batches(), form)


def tail(form: Form, folder: Path, batch_size: int = 64) -> tuple[NDArray[np.float64], int]:
    path = written(form, folder)
    if not form.text.endswith("\n"):
        with path.open("ab") as file:
            file.write("\n".encode(form.encoding.removesuffix("-sig")))
    stop = threading.Event()
    settings = TailSettings(
        id="s", kind="tail", bundle=Path("b"), path=path, poll_s=0.01, table=form.table, stop_after_s=1.0,
        batch_size=batch_size,
    )  # fmt: skip
    return screened(open_source(settings, Modality.TABULAR, spec_of(form), stop).batches(), form, stop)


def tail_by_rows(form: Form, folder: Path) -> tuple[NDArray[np.float64], int]:
    return tail(form, folder, batch_size=1)


def stdin(form: Form, folder: Path) -> tuple[NDArray[np.float64], int]:
    settings = StdinSettings(id="s", kind="stdin", bundle=Path("b"), format="csv", table=form.table)
    data = io.BytesIO(form.text.encode(form.encoding))
    pacer = Pacer(0.0, 64, 0.0, threading.Event())
    return screened(StdinSource(settings, Modality.TABULAR, spec_of(form), pacer, data).batches(), form)


class Messages(MqttSource):
    """Source of messages that a broker would send."""

    payloads: Sequence[bytes] = ()

    def _start(self) -> None:
        for payload in self.payloads:
            message = MQTTMessage(topic=b"plant/press")
            message.payload = payload
            self._received(None, None, message)
        self._intake.end()

    def _end(self) -> None:
        pass


def mqtt(form: Form, folder: Path, *, as_values: bool = False) -> tuple[NDArray[np.float64], int]:
    """Read records; the bundle has the decimal mark that training found in the table."""
    spec = spec_of(form)
    if form.kind == "cells" and not isinstance(form.expected, str):
        spec = spec.model_copy(update={"decimal": read_for_training(form, written(form, folder)).decimal.strip(".")})
    settings = MqttSettings(
        id="s", kind="mqtt", url="mqtt://b", topic="plant/+", bundle=Path("b"), table=form.table, time_path=form.time
    )
    source = Messages(settings, Modality.TABULAR, spec, Pacer(0.0, 64, 0.0, threading.Event()))
    names, rows = cells_of(form)
    records = [dict(zip(names, row, strict=True)) for row in (typed(rows) if as_values else rows)]
    source.payloads = [json.dumps(record, default=str).encode(form.encoding) for record in records]
    return screened(source.batches(), form)


TEXT_WAYS = {
    "training": training,
    "evaluate": evaluation,
    "replay": replay,
    "tail": tail,
    "tail by rows": tail_by_rows,
    "stdin": stdin,
}
VALUE_WAYS = {
    "Parquet, training": partial(training, suffix="parquet"),
    "Parquet, evaluate": partial(evaluation, suffix="parquet"),
    "Parquet, replay": partial(replay, suffix="parquet"),
    "MQTT, numbers": partial(mqtt, as_values=True),
}
WAYS: dict[str, Callable[[Form, Path], tuple[NDArray[np.float64], int]]] = TEXT_WAYS | {"MQTT": mqtt} | VALUE_WAYS
WAYS_OF_KIND = {
    "lines": tuple(TEXT_WAYS),
    "cells": (*TEXT_WAYS, "MQTT"),
    "values": tuple(WAYS),
}
DEVICE_WAYS = ("replay", "tail", "tail by rows", "stdin")


def series_training(form: Form, folder: Path, suffix: str = "csv", **more: object) -> NDArray[np.float64]:
    settings = DataSettings.model_validate(more)
    data = load_training_data(written(form, folder, suffix), Modality.SERIES, settings, to_judge=True)
    assert isinstance(data, TableData)
    return data.rows


def series_source(form: Form, folder: Path, kind: str, suffix: str = "csv") -> NDArray[np.float64]:
    """Return the rows of windows of one time point."""
    spec = spec_of(form).model_copy(update={"window_length": 1, "window_stride": 1})
    common: dict[str, Any] = {"id": "s", "kind": kind, "bundle": Path("b")}
    pacer, stop = Pacer(0.0, 64, 0.0, threading.Event()), threading.Event()
    source: Any
    if kind == "mqtt":
        settings = MqttSettings(**common, url="mqtt://b", topic="plant/+", time_path=form.time)
        source = Messages(settings, Modality.SERIES, spec, pacer)
        names, rows = cells_of(form)
        source.payloads = [json.dumps(dict(zip(names, row, strict=True))).encode() for row in rows]
    elif kind == "stdin":
        lines = io.BytesIO(form.text.encode())
        source = StdinSource(StdinSettings(**common, format="csv"), Modality.SERIES, spec, pacer, lines)
    elif kind == "tail":
        path = written(form, folder)
        source = open_source(TailSettings(**common, path=path, poll_s=0.01), Modality.SERIES, spec, stop)
    else:
        path = written(form, folder, suffix)
        source = open_source(ReplaySettings(**common, path=path), Modality.SERIES, spec, stop)
    windows = []
    for batch in source.batches():
        windows += np.asarray(batch.values, dtype=np.float64)[:, 0].tolist()
        if len(windows) == len(form.expected):
            stop.set()
    return np.array(windows)


SERIES_WAYS: dict[str, Callable[[Form, Path], NDArray[np.float64]]] = {
    "training": series_training,
    "evaluate": partial(series_training, columns=CHANNELS),
    "Parquet, training": partial(series_training, suffix="parquet"),
    "replay": partial(series_source, kind="replay"),
    "Parquet, replay": partial(series_source, kind="replay", suffix="parquet"),
    "tail": partial(series_source, kind="tail"),
    "stdin": partial(series_source, kind="stdin"),
    "MQTT": partial(series_source, kind="mqtt"),
}
