"""Tests of reading records: numbers as text, bad quality, time formats, and invalid payloads."""

import json
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge.settings.sources import MqttSettings
from edge.sources.alignment import Reading
from edge.sources.records import MAX_PAYLOAD_BYTES, MAX_RECORDS, RecordReader
from shared.errors import SettingsError
from shared.samples import Rejection
from tests.cases import CASES

NOW_S = 1.8e9


def reader(names: tuple[str, ...] = ("heat", "load"), **more: Any) -> RecordReader:
    settings = MqttSettings(id="s", kind="mqtt", url="mqtt://b", topic="t", bundle="b", **more)
    return RecordReader(settings, names, range(len(names)))


def read(of: RecordReader, payload: Any) -> tuple[list[Reading], list[str]]:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    found = list(of.read(data, NOW_S, "plant/press"))
    assert all(item.origin == "plant/press" for item in found if isinstance(item, Rejection))
    return (
        [item for item in found if isinstance(item, Reading)],
        [item.reason for item in found if isinstance(item, Rejection)],
    )


def test_values_are_found_by_channel_name() -> None:
    readings, reasons = read(reader(), {"load": 3, "heat": "41.5", "other": [1]})
    assert readings == [Reading(NOW_S, {0: 41.5, 1: 3.0})]
    assert reasons == []


def test_values_are_found_by_paths_and_lists_hold_several_records() -> None:
    by_path = reader(
        channels={"heat": {"path": 'data[0]."t-in"'}, "load": {"path": "data[?id=='l'].v | [0]"}}, time_path="ts"
    )
    record = {"ts": 1_800_000_000_500, "data": [{"t-in": 4.0}, {"id": "l", "v": 2}]}
    readings, reasons = read(by_path, [record, record])
    assert readings == [Reading(1_800_000_000.5, {0: 4.0, 1: 2.0})] * 2
    assert reasons == []


@pytest.mark.parametrize(
    "stamp",
    [1_800_000_000, 1_800_000_000_000, 1.8e15, 1_800_000_000_000_000_000, "1800000000", "2027-01-15T08:00:00Z",
     "2027-01-15T09:00:00+01:00", "2027-01-15 08:00:00"],
)  # fmt: skip
def test_time_units_and_formats_are_recognised(stamp: Any) -> None:
    readings, _ = read(reader(time_path="ts"), {"ts": stamp, "heat": 1, "load": 2})
    assert readings[0].at_s == 1.8e9


@pytest.mark.parametrize("stamp", ["yesterday", None, True, {}, "", "9" * 500, 1e300])
def test_an_invalid_time_rejects_the_record(stamp: Any) -> None:
    readings, reasons = read(reader(time_path="ts"), {"ts": stamp, "heat": 1, "load": 2})
    assert readings == []
    assert "time" in reasons[0]


def test_bad_quality_gives_a_missing_value_per_record_or_per_channel() -> None:
    of = reader(quality_path="q")
    assert math.isnan(read(of, {"q": "Bad", "heat": 1, "load": 2})[0][0].values[0])
    assert read(of, {"q": "GOOD", "heat": 1, "load": 2})[0][0].values == {0: 1.0, 1: 2.0}
    assert read(of, {"q": 192, "heat": 1, "load": 2})[0][0].values == {0: 1.0, 1: 2.0}
    own = reader(channels={"heat": {"path": "heat.v", "quality_path": "heat.ok"}}, good_quality=(True,))
    values = read(own, {"heat": {"v": 1, "ok": False}, "load": 2})[0][0].values
    assert math.isnan(values[0])
    assert values[1] == 2.0


def test_a_bare_number_is_the_value_of_a_single_channel() -> None:
    one = reader(("heat",))
    for payload in (b"21.5", b" 21.5\n", b'"21.5"', b"+21.5", b'{"heat": 21.5}'):
        assert read(one, payload)[0] == [Reading(NOW_S, {0: 21.5})]
    assert read(one, b"[1, 2]")[0] == [Reading(NOW_S, {0: 1.0}), Reading(NOW_S, {0: 2.0})]
    assert math.isnan(read(one, b"NaN")[0][0].values[0])
    assert read(one, b"OFF")[1] == ["channel 'heat' cannot be read: 'OFF' is not a number."]


def test_one_bad_value_does_not_affect_the_others() -> None:
    readings, reasons = read(reader(), {"heat": "broken", "load": 2})
    assert readings == [Reading(NOW_S, {1: 2.0})]
    assert reasons == ["channel 'heat' cannot be read: 'broken' is not a number."]
    for value in ("inf", 1e400, [1], {"v": 1}, 10**400):
        readings, reasons = read(reader(), json.dumps({"heat": value, "load": 2}).encode())
        assert readings == [Reading(NOW_S, {1: 2.0})]
        assert len(reasons) == 1


def test_a_whole_row_is_one_rejection() -> None:
    settings = MqttSettings(id="s", kind="mqtt", url="mqtt://b", topic="t", bundle="b")
    rows = RecordReader(settings, ("heat", "load"), (0, 1), whole_rows=True)
    assert read(rows, [{"heat": "x", "load": []}, {"heat": 1}]) == (
        [Reading(NOW_S, {0: 1.0})],
        ["channel 'heat' cannot be read: 'x' is not a number."],
    )


def test_oversized_and_invalid_payloads_are_rejected() -> None:
    assert "limit" in read(reader(), b"x" * (MAX_PAYLOAD_BYTES + 1))[1][0]
    assert "limit" in read(reader(), [1] * (MAX_RECORDS + 1))[1][0]
    assert "not JSON" in read(reader(), b"\xff\xfe")[1][0]
    assert read(reader(), b"[" * 100_000)[0] == []


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["heat", "load", "ts", "q"]), inner),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_payload_gives_finite_readings_or_rejections(payload: bytes) -> None:
    of = reader(time_path="ts", quality_path="q", channels={"heat": {"path": "heat[0].v || heat"}})
    for item in of.read(payload, NOW_S, "t"):
        if isinstance(item, Reading):
            assert math.isfinite(item.at_s)
            assert not any(math.isinf(value) for value in item.values.values())
        else:
            assert len(item.reason) < 400


def test_an_invalid_path_is_refused_at_the_start() -> None:
    with pytest.raises(SettingsError, match="channel 'heat': path: 'a-b' is no JMESPath"):
        reader(channels={"heat": {"path": "a-b"}})


def test_missing_and_null_fields_give_no_reading_and_nan_a_missing_value() -> None:
    assert read(reader(), {"heat": 1})[0] == [Reading(NOW_S, {0: 1.0})]
    assert read(reader(), {"heat": 1, "load": None})[0] == [Reading(NOW_S, {0: 1.0})]
    assert math.isnan(read(reader(), {"heat": 1, "load": "NaN"})[0][0].values[1])


CASE = CASES / "11-batched-payload" / "message.json"
PUMP = {"temp": {"name": "L1.Pump.temp"}, "pressure": {"name": "L1.Pump.pressure"}}
NAMED = {"records_path": "values", "name_path": "id", "value_path": "v", "time_path": "t", "quality_path": "q",
         "good_quality": (True,), "channels": PUMP}  # fmt: skip


def batched(*records: tuple[str, float, bool, int]) -> dict[str, Any]:
    """A message of a gateway: values of several tags, each at its own time in ms."""
    return {
        "timestamp": 1_764_000_005_000,
        "values": [{"id": f"L1.Pump.{tag}", "v": v, "q": q, "t": 1_764_000_000_000 + t} for tag, v, q, t in records],
    }


def counting(names: tuple[str, ...], **more: Any) -> tuple[RecordReader, Counter[str]]:
    """A reader, and what it leaves out by reason."""
    left_out: Counter[str] = Counter()
    settings = MqttSettings(id="s", kind="mqtt", url="mqtt://b", topic="t", bundle="b", **more)

    def leave_out(reason: str, count: int) -> None:
        left_out[reason] += count

    return RecordReader(settings, names, range(len(names)), on_left_out=leave_out), left_out


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(
            CASE.read_bytes() if CASE.exists() else b"",
            marks=pytest.mark.skipif(not CASE.exists(), reason="the folder of cases is absent"),
            id="case-11",
        ),
        batched(("temp", 60.5, True, 0), ("pressure", 3.01, True, 0), ("temp", 60.7, True, 1000),
                ("pressure", 3.02, True, 1000), ("temp", 60.6, True, 2000), ("pressure", 2.99, False, 2000)),
        batched(("temp", 60.5, True, 0), ("temp", 60.7, True, 1000), ("temp", 60.6, True, 2000),
                ("pressure", 2.99, False, 2000), ("pressure", 3.02, True, 1000), ("pressure", 3.01, True, 0)),
    ],
)  # fmt: skip
def test_each_record_of_a_batched_message_counts_at_its_own_time(message: Any) -> None:
    of, left_out = counting(("temp", "pressure"), **NAMED)
    readings, reasons = read(of, message)
    assert reasons == []
    assert [reading.at_s for reading in readings] == [1.764e9, 1.764e9 + 1, 1.764e9 + 2]
    assert [reading.values[0] for reading in readings] == [60.5, 60.7, 60.6]
    assert [reading.values[1] for reading in readings[:2]] == [3.01, 3.02]
    assert math.isnan(readings[2].values[1])
    assert left_out == {"bad quality": 1, "replaced by a later value of the same time": 0}


def test_records_that_are_left_out_are_counted_with_their_reason() -> None:
    of, left_out = counting(("temp", "pressure"), **NAMED)
    message = batched(("temp", 1.0, True, 0), ("flow", 2.0, True, 0), ("temp", 3.0, True, 0), ("speed", 1.0, True, 1))
    message["values"] += [{"id": "L1.Pump.temp", "t": 1_764_000_000_000}, {"v": 3}, 7, None]
    readings, reasons = read(of, message)
    assert readings == [Reading(1.764e9, {0: 3.0})]
    # A record without a time is a rejection.
    assert len(reasons) == 3
    assert all("time" in reason for reason in reasons)
    assert left_out == {"name of no channel": 2, "replaced by a later value of the same time": 1, "no value": 1}


def test_a_list_inside_a_message_holds_wide_records_newest_first() -> None:
    of, left_out = counting(
        ("heat", "load"),
        records_path="metrics",
        time_path="timestamp",
        channels={"heat": {"path": "fields.heat"}, "load": {"path": "fields.load"}},
    )
    metrics = [{"timestamp": 1_764_000_000 + at, "fields": {"heat": at, "load": 1}} for at in (2, 1, 0)]
    readings, _ = read(of, {"metrics": [*metrics, {"timestamp": 1_764_000_003, "fields": {"other": 1}}]})
    assert [reading.values[0] for reading in readings] == [0.0, 1.0, 2.0]
    assert left_out == {"no value of any channel": 1}


def test_nested_lists_and_the_time_of_the_message() -> None:
    of, _ = counting(("heat",), records_path="devices[].readings[]", time_path="ts", message_time_path="sent")
    message = {"sent": 1_764_000_009, "devices": [{"readings": [{"heat": 1, "ts": 1_764_000_001}, {"heat": 2}]}]}
    readings, reasons = read(of, message)
    assert readings == [Reading(1_764_000_001.0, {0: 1.0}), Reading(1_764_000_009.0, {0: 2.0})]
    assert reasons == []


@pytest.mark.parametrize("message", [{}, {"values": None}, {"values": 5}, {"values": "x"}, [], 3, None])
def test_a_message_without_its_list_is_a_rejection(message: Any) -> None:
    of, _ = counting(("temp", "pressure"), **NAMED)
    assert read(of, message) == ([], ["has no records at 'values'."])
    assert "limit" in read(of, {"values": [1] * (MAX_RECORDS + 1)})[1][0]
    assert read(of, {"values": []}) == ([], [])


def test_senml_packs_are_resolved() -> None:
    of, left_out = counting(("heat", "load"), senml=True, channels={"heat": {"name": "urn:dev:1:heat"}})
    pack = [
        {"bn": "urn:dev:1:", "bt": 1_764_000_000, "bu": "Cel", "n": "heat", "v": 20.5},
        {"n": "heat", "t": 1, "v": 21.5},
        {"bn": "", "n": "load", "vb": True},
        {"n": "humidity", "v": 40},
        {"n": "load", "t": 2},
        5,
    ]
    readings, reasons = read(of, pack)
    assert readings == [Reading(1.764e9, {0: 20.5, 1: 1.0}), Reading(1.764e9 + 1, {0: 21.5})]
    assert reasons == ["'load' has no value.", "'5' is not a SenML record."]
    assert left_out["name of no channel"] == 1
    relative = [{"n": "load", "t": -5, "v": 3}]
    assert read(of, relative)[0] == [Reading(NOW_S - 5, {1: 3.0})]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"senml": True, "records_path": "a"}, "senml sets names"),
        ({"channels": {"heat": {"name": "h"}}}, "set name_path"),
        ({"name_path": "id", "channels": {"heat": {"name": "a"}, "load": {"name": "a"}}}, "the same name"),
    ],
)
def test_settings_of_records_that_contradict_one_another_are_refused(settings: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        reader(**settings)


@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["values", "id", "v", "t", "q", "bn", "bt", "n", "vb"]), inner),
))  # fmt: skip
def test_any_batched_message_gives_finite_readings_or_rejections(message: Any) -> None:
    for of in (counting(("temp", "pressure"), **NAMED)[0], counting(("temp",), senml=True)[0]):
        for item in of.read(json.dumps(message).encode(), NOW_S, "t"):
            if isinstance(item, Reading):
                assert math.isfinite(item.at_s)
                assert not any(math.isinf(value) for value in item.values.values())
            else:
                assert len(item.reason) < 400
