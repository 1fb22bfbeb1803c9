"""Tests of reading records: numbers as text, bad quality, time formats, and invalid payloads."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.settings.sources import MqttSettings
from edge.sources.alignment import Reading
from edge.sources.records import MAX_PAYLOAD_BYTES, MAX_RECORDS, RecordReader
from shared.errors import SettingsError
from shared.samples import Rejection

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
