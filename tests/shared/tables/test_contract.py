"""One table in many dialects through every way in: the same values, or the same refusal.

Ways in: the reader of training, the reader of `vedette evaluate`, replay, tail, standard input, and JSON records as an
MQTT message brings them. A form is given as text; a list of expected rows means it is read, a string is a part of the
refusal's message.
"""

import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloud.training.data import TableData
from cloud.training.modalities import load_training_data
from cloud.training.settings import DataSettings
from edge.settings.sources import MqttSettings, ReplaySettings, StdinSettings, TailSettings
from edge.sources import open_source
from edge.sources.alignment import Reading
from edge.sources.base import Pacer
from edge.sources.records import RecordReader
from edge.sources.stdin import StdinSource
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.modality import Modality

NAN = float("nan")
ROWS = [[60.0, 3.125], [60.5, 3.25], [61.25, 2.5], [1234.5, 0.875]]
CHANNELS = ("temp", "flow")


@dataclass(frozen=True)
class Form:
    """One form of the table. `expected`: its rows, or a part of the message that refuses it."""

    text: str
    expected: list[list[float]] | str = field(default_factory=lambda: ROWS)
    encoding: str = "utf-8"
    channels: tuple[str, ...] = CHANNELS
    missing: bool = False
    decimal: str = ""  # of the training table, as the bundle records it
    one_hot: bool = False
    table: dict[str, str] = field(default_factory=dict)
    labels: int | None = None  # anomalies that training finds
    rejected: int = 0  # rows that a device rejects and training drops with bad_rows = "drop"


def csv(
    header: str = "temp,flow", delimiter: str = ",", end: str = "\n", fill: Callable[[int], str] = lambda _: ""
) -> str:
    lines = [f"{fill(index)}{a!r}{delimiter}{b!r}" for index, (a, b) in enumerate(ROWS)]
    return header + end + end.join(lines) + end


def comma(text: str) -> str:
    return text.replace(".", ",")


def with_column(name: str, cells: list[str], *, first: bool = True) -> str:
    header = f"{name},temp,flow" if first else f"temp,flow,{name}"
    rows = [f"{cell},{a!r},{b!r}" if first else f"{a!r},{b!r},{cell}" for cell, (a, b) in zip(cells, ROWS, strict=True)]
    return "\n".join([header, *rows]) + "\n"


BASE = csv()
FORMS = {
    "plain": Form(BASE),
    "semicolon": Form(csv("temp;flow", ";")),
    "tab": Form(csv("temp\tflow", "\t")),
    "decimal comma": Form(comma(csv("temp;flow", ";"))),
    "decimal comma, tab": Form(comma(csv("temp\tflow", "\t"))),
    "decimal comma, quoted": Form('temp,flow\n"60,0","3,125"\n"60,5","3,25"\n"61,25","2,5"\n"1234,5","0,875"\n'),
    "thousands comma": Form(BASE.replace("1234.5", '"1,234.5"')),
    "thousands point": Form(comma(csv("temp;flow", ";")).replace("1234,5", "1.234,5")),
    "thousands space": Form(comma(csv("temp;flow", ";")).replace("1234,5", "1\u00a0234,5")),
    "thousands apostrophe": Form(BASE.replace("1234.5", "1'234.5")),
    "byte order mark": Form(BASE, encoding="utf-8-sig"),
    "UTF-16": Form(BASE, encoding="utf-16"),
    "Windows-1252 name": Form(BASE.replace("temp", "temp °C"), encoding="cp1252", channels=("temp °C", "flow")),
    "UTF-8 name": Form(BASE.replace("temp", "temp °C"), channels=("temp °C", "flow")),
    "CR LF": Form(csv(end="\r\n")),
    "no last line end": Form(BASE + "5.0,6.0", [*ROWS, [5.0, 6.0]]),
    "quoted cells": Form('"temp","flow"\n"60.0","3.125"\n"60.5","3.25"\n"61.25","2.5"\n"1234.5","0.875"\n'),
    "quoted delimiter in a name": Form(BASE.replace("temp", '"temp, in"'), channels=("temp, in", "flow")),
    "spaces": Form(BASE.replace(",", " , ")),
    "trailing delimiters": Form(BASE.replace("\n", ",\n")),
    "trailing delimiters, not in the header": Form(BASE.replace("\n", ",\n").replace("flow,", "flow", 1)),
    "header one short, row numbers": Form(csv(fill=lambda index: f"{index + 1},")),
    "header one short, other values": Form(csv(fill=lambda index: f"{index * 7.5},"), "the header 2"),
    "index without a name": Form(csv(",temp,flow", fill=lambda index: f"{index},")),
    "index with a name": Form(with_column("row", ["0", "1", "2", "3"])),
    "units": Form(BASE.replace("flow\n", "flow\n°C,l/min\n")),
    "header twice": Form("temp,flow,temp\n1,2,3\n", "column 'temp' appears more than once"),
    "no header": Form("60.0,3.125\n60.5,3.25\n", "holds numbers"),
    "blank lines": Form(BASE.replace("flow\n", "flow\n\n") + "\n\n"),
    "booleans": Form("temp,flow\ntrue,1.5\nFalse,2\nYES,3\nno,4\n", [[1, 1.5], [0, 2], [1, 3], [0, 4]]),
    "exponents": Form("temp,flow\n6.0e1,+3.125\n.5,-5.\n", [[60, 3.125], [0.5, -5]]),
    **{
        f"missing {word!r}": Form(f"temp,flow\n60.0,3.125\n{word},4\n", [[60, 3.125], [NAN, 4]], missing=True)
        for word in ("", "NA", "#N/A", "null", "-", "None", "NaN")
    },
    "missing, not allowed": Form("temp,flow\n60.0,3.125\nNA,4\n7,8\n", [[60, 3.125], [7, 8]], rejected=1),
    "infinite": Form("temp,flow\n60.0,3.125\ninf,4\n7,8\n", [[60, 3.125], [7, 8]], rejected=1),
    "a word": Form("temp,flow\n60.0,3.125\nbroken,4\n7,8\n", [[60, 3.125], [7, 8]], rejected=1),
    "a word, missing allowed": Form("temp,flow\n60.0,3\nbroken,4\n7,8\n", [[60, 3], [7, 8]], missing=True, rejected=1),
    "a short row": Form("temp,flow\n60.0,3.125\n5\n7,8\n", [[60, 3.125], [7, 8]], rejected=1),
    "first row long": Form(
        "temp,flow\n5,60.0,3.1\n60.0,3.125\n7,8\n9,5\n", [[60, 3.125], [7, 8], [9, 5]], rejected=1
    ),
    "first row long, a word": Form("temp,flow\nx9,60,3.1\n60.0,3.125\n7,8\n", [[60, 3.125], [7, 8]], rejected=1),
    "first rows long, a gap": Form("temp,flow\n5,60,3.1\n9,60,3.1\n7,8\n", [[7, 8]], rejected=2),
    "all rows long": Form("temp,flow\nx9,60,3.1\nx8,60,3.1\n", "the header 2"),
    "first row words": Form("temp,flow\n??,??\n60.0,3.125\n7,8\n", [[60, 3.125], [7, 8]]),
    "first row words, then row numbers": Form("temp,flow\n??,??\n1,60.0,3.125\n2,7,8\n", [[60, 3.125], [7, 8]]),
    "first row words, then a long row": Form("temp,flow\n??,??\n1,6,3\n2,7\n", [[2, 7]], rejected=1),
    "first row an open quote": Form('temp,flow\n"5,1\n1,60.0,3.125\n2,7,8\n', [[60, 3.125], [7, 8]], rejected=1),
    "first row an open quote, then words": Form('temp,flow\n"5,1\n??,??\n7,8\n', [[7, 8]], rejected=2),
    "first row ambiguous thousands": Form(
        "temp;flow\n1.234;3\n60,5;2\n1.000;2\n", [[1234, 3], [60.5, 2], [1000, 2]], decimal=","
    ),
    "a long row": Form("temp,flow\n60.0,3.125\n5,1,9\n7,8\n", [[60, 3.125], [7, 8]], rejected=1),
    "an open quote": Form('temp,flow\n60.0,3.125\n"5,1\n7,8\n', [[60, 3.125], [7, 8]], rejected=1),
    "underscores": Form("temp,flow\n60.0,3.125\n1_0,1\n7,8\n", [[60, 3.125], [7, 8]], rejected=1),
    "hexadecimal": Form("temp,flow\n60.0,3.125\n0x10,1\n7,8\n", [[60, 3.125], [7, 8]], rejected=1),
    "mixed decimal marks": Form("temp;flow\n60,5;3,25\n60.5;1\n7;8\n", [[60.5, 3.25], [7, 8]], rejected=1),
    "time": Form(with_column("timestamp", ["2025-10-24T00:00:00Z", "2025-10-24T00:01:00Z"] * 2)),
    "time by its cells": Form(with_column("recorded", [f"24.10.2025 00:0{index}" for index in range(4)])),
    "epoch": Form(with_column("t_ms", [str(1_750_000_000_000 + 1000 * index) for index in range(4)])),
    "epoch before the index": Form(with_column("t", [str(1_750_000_000 + index) for index in range(4)])),
    "label": Form(with_column("label", ["0", "0", "1", "0"], first=False), labels=1),
    "label words": Form(with_column("anomaly", ["normal", "leak", "ok", "no"], first=False), labels=1),
    "category": Form(
        with_column("mode", ["idle", "run", "idle", "run"]),
        [[on, off, *row] for on, off, row in zip([1, 0, 1, 0], [0, 1, 0, 1], ROWS, strict=True)],
        channels=("mode=idle", "mode=run", *CHANNELS),
        one_hot=True,
    ),
    "category, refused": Form(
        with_column("mode", ["idle", "run", "idle", "run"]), "'idle' is not a number", channels=("mode", *CHANNELS)
    ),
    "delimiter set": Form("temp;flow,b\n1;2\n", [[1, 2]], table={"delimiter": ";"}, channels=("temp", "flow,b")),
    "decimal mark set": Form("temp;flow\n60.000;1\n", [[60000, 1]], table={"decimal": ","}),
}  # fmt: skip

# Training refuses the first table for its columns of text, and has no decimal mark to follow in the second.
DEVICE_FORMS = {
    "first rows words": Form("temp,flow\n??,??\n??,??\n60.0,3.125\n", [[60, 3.125]], rejected=2),
    "first row ambiguous thousands, then points": Form(
        "temp;flow\n3;1.234\n60.5;2\n7;8\n", [[3, 1234], [7, 8]], decimal=",", rejected=1
    ),
}


def spec_of(form: Form) -> InputSpec:
    categories = {"mode": ("idle", "run")} if form.one_hot else {}
    return InputSpec(channels=form.channels, missing=form.missing, categories=categories, decimal=form.decimal)


def written(form: Form, folder: Path) -> Path:
    path = folder / "table.csv"
    path.write_bytes(form.text.encode(form.encoding))
    return path


def training(form: Form, folder: Path, *, as_evaluate: bool = False) -> tuple[NDArray[np.float64], int]:
    values: dict[str, Any] = {
        "missing": "allow" if form.missing else "refuse",
        "bad_rows": "drop",
        "table": form.table,
        "categories": "one_hot" if form.one_hot else "refuse",
    }
    if as_evaluate:
        spec = spec_of(form)
        values |= {"columns": spec.channels, "category_values": spec.categories, "categories": "refuse"}
    data = load_training_data(
        written(form, folder), Modality.TABULAR, DataSettings.model_validate(values), to_judge=True
    )
    assert isinstance(data, TableData)
    if form.labels is not None:
        assert data.labels is not None
        assert np.count_nonzero(data.labels) == form.labels
    else:
        assert data.labels is None
    assert data.columns == form.channels
    return data.rows[data.usable], int(np.count_nonzero(~data.usable))


def evaluation(form: Form, folder: Path) -> tuple[NDArray[np.float64], int]:
    return training(form, folder, as_evaluate=True)


def screened(batches: Any, form: Form, stop: threading.Event | None = None) -> tuple[NDArray[np.float64], int]:
    """Values and count of rejections; rows that the preprocessing rejects count as rejected."""
    rows: list[list[float]] = []
    rejected = 0
    for batch in batches:
        for row in np.asarray(batch.values).tolist():
            usable = not any(np.isinf(row)) and (form.missing or not any(np.isnan(row)))
            rows += [row] if usable else []
            rejected += not usable
        rejected += len({rejection.origin for rejection in batch.rejections})
        total = len(form.expected) + form.rejected
        if stop is not None and not isinstance(form.expected, str) and len(rows) + rejected >= total:
            stop.set()
    return np.array(rows, dtype=np.float64), rejected


def replay(form: Form, folder: Path) -> tuple[NDArray[np.float64], int]:
    settings = ReplaySettings(id="s", kind="replay", bundle=Path("b"), path=written(form, folder), table=form.table)
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
    found: list[list[float]] = []
    rejected = 0
    for batch in StdinSource(settings, Modality.TABULAR, spec_of(form), pacer, data).batches():
        rows, more = screened([batch], form)
        found += rows.tolist()
        rejected += more
    # A bad cell is a rejection of its own on standard input, and its row has a missing value.
    return np.array(found), rejected


WAYS = {
    "training": training,
    "evaluate": evaluation,
    "replay": replay,
    "tail": tail,
    "tail by rows": tail_by_rows,
    "stdin": stdin,
}
DEVICE_WAYS = ("replay", "tail", "tail by rows", "stdin")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_read_alike_by_every_way_in(tmp_path: Path, name: str, way: str) -> None:
    form = FORMS[name]
    if isinstance(form.expected, str):
        try:
            values, rejected = WAYS[way](form, tmp_path)
        except DataError as error:
            message = str(error)
        else:  # a device may reject row by row
            assert not len(values)
            assert rejected
            return
        assert form.expected in message
        return
    values, rejected = WAYS[way](form, tmp_path)
    if way == "stdin" and form.missing and form.rejected:
        values = values[~np.isnan(values).any(axis=1)]  # the other channels of a record with a bad value are kept
    np.testing.assert_array_equal(values, np.array(form.expected))
    assert (rejected > 0) == (form.rejected > 0)


@pytest.mark.parametrize("way", DEVICE_WAYS)
@pytest.mark.parametrize("name", [name for name in FORMS if name.startswith("first row")])
def test_a_device_counts_each_faulty_first_row_once(tmp_path: Path, name: str, way: str) -> None:
    assert WAYS[way](FORMS[name], tmp_path)[1] == FORMS[name].rejected


@pytest.mark.parametrize("way", DEVICE_WAYS)
@pytest.mark.parametrize("name", DEVICE_FORMS)
def test_a_form_is_read_alike_by_every_source(tmp_path: Path, name: str, way: str) -> None:
    values, rejected = WAYS[way](DEVICE_FORMS[name], tmp_path)
    np.testing.assert_array_equal(values, DEVICE_FORMS[name].expected)
    assert rejected > 0


@pytest.mark.parametrize(
    ("text", "value"),
    [("60.5", 60.5), ("60,5", 60.5), ("1.234,5", 1234.5), ("1,234.5", 1234.5), ("true", 1.0), ("No", 0.0),
     ("5e-1", 0.5), ("NA", NAN), ("-", NAN), ("#N/A", NAN), ("", NAN), (" 7 ", 7.0)],
)  # fmt: skip
def test_a_text_in_a_record_means_the_same_as_in_a_cell(tmp_path: Path, text: str, value: float) -> None:
    settings = MqttSettings(id="s", kind="mqtt", url="mqtt://b", topic="t", bundle=Path("b"))
    (found,) = RecordReader(settings, ("temp",), [0]).read(json.dumps({"temp": text}).encode(), 0.0, "t")
    assert isinstance(found, Reading)
    np.testing.assert_equal(found.values[0], value)
    values, _ = training(Form(f"temp;flow\n{text};1\n2;3\n", missing=True), tmp_path)
    np.testing.assert_equal(values[0, 0], value)


@pytest.mark.parametrize("text", ["broken", "1_0", "0x10", "\uff11\uff12", "1.2.3", "12%", "on"])
def test_a_text_that_is_no_number_is_refused_alike(tmp_path: Path, text: str) -> None:
    settings = MqttSettings(id="s", kind="mqtt", url="mqtt://b", topic="t", bundle=Path("b"))
    (found,) = RecordReader(settings, ("temp",), [0]).read(json.dumps({"temp": text}).encode(), 0.0, "t")
    path = written(Form(f"temp;flow\n1;2\n2;3\n3;4\n{text};1\n"), tmp_path)
    with pytest.raises(DataError) as caught:
        load_training_data(path, Modality.TABULAR, DataSettings())
    core = f"{text!r} is not a number"
    assert core in str(caught.value)
    assert core in found.reason


def test_a_record_s_category_is_the_channel_that_training_made() -> None:
    settings = MqttSettings(id="s", kind="mqtt", url="mqtt://b", topic="t", bundle=Path("b"))
    reader = RecordReader(settings, ("mode=idle", "mode=run"), [0, 1], categories={"mode": ("idle", "run")})
    (found,) = reader.read(b'{"mode": "run"}', 0.0, "t")
    assert found == Reading(0.0, {0: 0.0, 1: 1.0})
