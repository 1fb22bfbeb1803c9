"""One table in many forms through every way in: the same values, or the same refusal.

| way in | reads |
|---|---|
| training, evaluate, replay | a CSV file; the forms of values also as a Parquet file |
| tail, stdin | a CSV file whose lines arrive at once, for tail also one by one |
| MQTT | one JSON record per row through `MqttSource`, its values as texts; the forms of values also as numbers |

`Form.kind` says where a form exists: `lines` in the lines of a text file only (delimiters, quotes, encodings, headers,
counts of cells), `cells` also as texts of a record (decimal marks, thousands, words for missing values), `values` also
as JSON numbers and in Parquet (numbers, booleans, missing and infinite values, categories, times, labels, index
columns). A list of expected rows means that the form is read, a string is a part of the refusal's message.

Rows (modality tabular) are given in the order of the file or of the messages, also if their times are in no order. Of a
series, files in order or with repeated times are read by every way; a file in no order is refused by training, evaluate
and replay, while tail and stdin keep the order of the lines, and MQTT leaves out what is late.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from cloud.training.modalities import load_training_data
from cloud.training.settings import DataSettings
from edge.settings.sources import MqttSettings
from edge.sources.alignment import Reading
from edge.sources.records import RecordReader
from shared.errors import DataError
from shared.modality import Modality
from tests.shared.tables.forms import DEVICE_FORMS, FORMS, NAN, Form
from tests.shared.tables.ways import DEVICE_WAYS, SERIES_WAYS, WAYS, WAYS_OF_KIND, training, written


@pytest.mark.parametrize(
    ("name", "way"), [(name, way) for name, form in FORMS.items() for way in WAYS_OF_KIND[form.kind]]
)
def test_a_form_is_read_alike_by_every_way_in(tmp_path: Path, name: str, way: str) -> None:
    form = FORMS[name] if way.endswith("training") else FORMS[name].as_later()
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


SERIES = {
    "in order": (["00:00", "00:15", "00:30", "00:45", "01:00"], True),
    "times twice": (["00:00", "00:00", "00:15", "00:15", "00:30"], True),
    "the end of daylight saving": (["02:15", "02:30", "02:45", "02:00", "02:15"], True),
    "zones that change": (["02:30+02:00", "02:45+02:00", "02:00+01:00", "02:15+01:00", "02:30+01:00"], True),
    "in no order": (["00:30", "00:00", "00:45", "00:15", "01:00"], False),
}


@pytest.mark.parametrize("name", SERIES)
def test_a_series_in_order_is_read_alike_and_one_in_no_order_refused(tmp_path: Path, name: str) -> None:
    clocks, is_in_order = SERIES[name]
    table = [[2.0 * index, index % 2 + 0.5] for index in range(5)]
    times = [f"2025-10-26T{clock}" for clock in clocks]
    lines = [f"{at},{a},{b}" for at, (a, b) in zip(times, table, strict=True)]
    form = Form("timestamp,temp,flow\n" + "\n".join(lines) + "\n", table, kind="values", time="timestamp")
    for way in SERIES_WAYS:
        if is_in_order or way in ("tail", "stdin"):
            np.testing.assert_array_equal(SERIES_WAYS[way](form, tmp_path), table, err_msg=way)
        elif way == "MQTT":
            assert SERIES_WAYS[way](form, tmp_path)[:, 0].tolist() == [0, 4, 8]  # the others came after their row
        else:
            with pytest.raises(DataError, match="row 2 is earlier than the row before it in 'timestamp'"):
                SERIES_WAYS[way](form, tmp_path)


@pytest.mark.parametrize("way", ["replay", "tail", "stdin"])
@pytest.mark.parametrize("fault", ["5", "broken,", "broken,broken", '"5,1'])
def test_a_faulty_row_of_a_series_keeps_its_place(tmp_path: Path, way: str, fault: str) -> None:
    form = Form(f"temp,flow\n1,2\n{fault}\n3,4\n", [[1, 2], [NAN, NAN], [3, 4]])
    np.testing.assert_array_equal(SERIES_WAYS[way](form, tmp_path), form.expected)


@pytest.mark.parametrize("way", ["Parquet, training", "Parquet, evaluate", "Parquet, replay"])
def test_a_name_twice_in_parquet_is_refused(tmp_path: Path, way: str) -> None:
    with pytest.raises(DataError, match="column 'temp' appears more than once"):
        WAYS[way](FORMS["header twice"], tmp_path)


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
