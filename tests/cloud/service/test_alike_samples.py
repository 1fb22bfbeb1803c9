"""The quick check of alike samples accepts what the check of each sample accepts, also of hostile bytes."""

import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.service import alike_samples
from cloud.service.alike_samples import AlikeCheck
from cloud.service.bundle_rules import BundleRule
from cloud.service.sample_check import SharedFields, plain_readings
from shared.bundle import InputSpec
from shared.modality import Modality
from shared.samples import Route, Sample, Screening, new_sample_id
from shared.wire import sample_to_message
from tests.cloud.service.harness import check_samples
from vedette.v1 import detection_pb2, sample_pb2

RULES = {"line-1-00000000": BundleRule(Modality.TABULAR, InputSpec(channels=("a", "b", "c")))}
COUNT = 32
DEVICE = "one"


def row(place: int, score: float = 3.5, p_value: float = 0.01, **changes) -> sample_pb2.Sample:
    values = np.arange(3, dtype=np.float32) + place
    sample = Sample(new_sample_id(), "line-1", Modality.TABULAR, time.time(), f"rows.csv:{place}", values)
    screening = Screening(score, p_value, place % 5 == 0, Route.FORWARD, "line-1-00000000", "cal", "int8")
    message = sample_to_message(sample, screening)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def rows(count: int = COUNT) -> list[sample_pb2.Sample]:
    return [row(place) for place in range(count)]


def serialised(samples) -> bytes:
    return detection_pb2.SubmitRequest(samples=samples).SerializeToString()


@pytest.fixture
def check() -> AlikeCheck:
    known = SharedFields()
    return AlikeCheck(lambda message: plain_readings(message, RULES, known))


def test_rows_of_several_lengths_are_accepted_in_their_order(check):
    for count in (COUNT, 300):  # the second time with known layouts, and with longer origins
        sent = rows(count)
        found = check.check(DEVICE, serialised(sent))
        assert found is not None
        assert list(found.sample_ids) == [sample.sample_id for sample in sent]
        assert found.payload_bytes == count * 12


@pytest.mark.parametrize("count", [1, 2, 8])
def test_few_samples_are_accepted_too(check, count):
    sent = rows(count)
    for _ in range(2):
        found = check.check(DEVICE, serialised(sent))
        assert found is not None
        assert list(found.sample_ids) == [sample.sample_id for sample in sent]


def test_other_messages_go_the_usual_way(check):
    data = serialised(rows())
    for other in (
        b"",
        data[:-1],
        data + b"\x0a",
        data + b"\x12\x00",
        b"\x0a\xff\xff",
        b"\x00" * 100,
        b"\x0a\x00" * 100,
    ):
        assert check.check(DEVICE, other) is None


@pytest.mark.parametrize(
    "bad",
    [
        lambda: row(1, sample_id=b"\xff" * 16),
        lambda: row(1, sample_id=b"short"),
        lambda: row(1, p_value=1.5),
        lambda: row(1, p_value=float("nan")),
        lambda: row(1, origin="rows\0csv:1"),
        lambda: row(1, origin="Zeile ü:1"),
        lambda: row(1, origin="x" * 600),
        lambda: row(1, source_id="line-2\0"),
        lambda: with_payload(b"1234"),
        lambda: with_payload(np.array([1, np.nan, 2], "<f4").tobytes()),
        lambda: with_payload(np.array([1, np.inf, 2], "<f4").tobytes()),
        lambda: at(2**40, 0),
        lambda: at(1_700_000_000, 2_000_000_000),
    ],
)
def test_a_sample_that_is_not_clearly_valid_sends_the_request_the_usual_way(check, bad):
    sent = rows()
    assert check.check(DEVICE, serialised(sent)) is not None
    for place in (0, 7, len(sent)):
        assert check.check(DEVICE, serialised([*sent[:place], bad(), *sent[place:]])) is None


def with_payload(data: bytes) -> sample_pb2.Sample:
    message = row(1)
    message.payload.data = data
    return message


def at(seconds: int, nanos: int) -> sample_pb2.Sample:
    message = row(1)
    message.captured_at.seconds, message.captured_at.nanos = seconds, nanos
    return message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_request_with_any_bytes_changed_is_accepted_only_if_each_sample_is(check, changes):
    check.check(DEVICE, serialised(rows()))
    raw = bytearray(serialised(rows()))
    for place, value in changes:
        raw[place % len(raw)] = value
    if (found := check.check(DEVICE, bytes(raw))) is not None:
        messages = detection_pb2.SubmitRequest.FromString(bytes(raw)).samples
        assert check_samples(messages, RULES) == {}
        assert list(found.sample_ids) == [message.sample_id for message in messages]
        assert found.payload_bytes == sum(len(message.payload.data) for message in messages)


def framed(*samples: bytes) -> bytes:
    """Return a SubmitRequest of samples that are serialised already, of 128 to 16,383 bytes each."""
    return b"".join(b"\x0a" + bytes([len(sample) & 0x7F | 0x80, len(sample) >> 7]) + sample for sample in samples)


def test_an_unknown_field_cannot_cover_one_that_was_checked(check):
    """Field 15 as eight bytes that read like the beginning of a payload's data, before a modality."""
    plain = row(0).SerializeToString()
    cover = b"\x79" + b"\x12\x08" + bytes(6)
    for hidden in (plain + cover, cover + plain, plain + b"\x7b\x7c", plain + b"\xfa\x01\x02hi"):
        assert check.check(DEVICE, framed(*[hidden] * COUNT)) is None


def test_fields_of_another_wire_type_and_repeated_ones_go_the_usual_way(check):
    plain = row(0)
    twice = plain.SerializeToString() + sample_pb2.Sample(sample_id=b"x" * 16).SerializeToString()
    number = sample_pb2.Sample.DESCRIPTOR.fields_by_name["sample_id"].number
    as_number = bytes([number << 3 | 1]) + bytes(8)
    for other in (twice, as_number + plain.SerializeToString()):
        assert check.check(DEVICE, framed(*[other] * COUNT)) is None


def test_an_integer_without_an_end_is_refused_at_once(check):
    assert check.check(DEVICE, b"\x0a" + b"\xff" * 2**22) is None  # work that grows with the square would not end


def test_each_value_at_the_edge_of_its_range_is_judged_as_by_the_usual_check(check):
    """Ids, times and p-values beside those of a known layout."""
    assert check.check(DEVICE, serialised(rows(1))) is not None
    for nanos in (2**28, 999_999_999, 10**9, 2**31 - 1):
        for seconds in (1_700_000_000, 2**34):
            sent = at(seconds, nanos)
            is_valid = check_samples([sent], RULES) == {}
            assert (check.check(DEVICE, serialised([sent])) is not None) == is_valid == (nanos < 10**9)


def test_layouts_of_one_device_leave_those_of_others(check, monkeypatch):
    """A device with ever new lengths costs only itself: it may add few layouts, and replaces its own."""
    sent = serialised([row(0)])
    assert check.check("honest", sent) is not None
    accepted = [check.check("odd", serialised([row(0, origin="x" * (size + 1))])) for size in range(100)]
    assert 0 < sum(found is not None for found in accepted) <= alike_samples.NEW_LAYOUTS_AT_ONCE + 1
    assert len(check._layouts["odd"]) <= alike_samples.MAX_LAYOUTS
    monkeypatch.setattr(check, "_is_plain", None)  # no new layout is needed
    assert check.check("honest", sent) is not None


def test_the_memory_of_layouts_is_bounded(check, monkeypatch):
    monkeypatch.setattr(alike_samples, "MAX_DEVICES", 8)
    for number in range(30):
        assert check.check(f"device-{number}", serialised(rows(2))) is not None
    assert len(check._layouts) <= 8
    monkeypatch.setattr(alike_samples, "MAX_SHARED_BYTES", 16)
    assert check.check("long", serialised(rows(2))) is None
