"""The quick check of many alike samples: it accepts nothing that the check of each sample refuses."""

import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.service.alike_samples import LEAST_SAMPLES, AlikeCheck
from cloud.service.bundle_rules import BundleRule
from cloud.service.sample_check import SharedFields, plain_readings
from shared.bundle import InputSpec
from shared.modality import Modality
from shared.samples import Route, Sample, Screening, new_sample_id
from shared.wire import sample_to_message
from tests.cloud.service.harness import check_samples
from vedette.v1 import detection_pb2, sample_pb2

RULES = {"line-1-00000000": BundleRule(Modality.TABULAR, InputSpec(channels=("a", "b", "c")))}
COUNT = LEAST_SAMPLES + 8


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
        found = check.check(serialised(sent))
        assert found is not None
        assert found.sample_ids == [sample.sample_id for sample in sent]
        assert found.payload_bytes == count * 12


def test_few_samples_and_other_messages_go_the_usual_way(check):
    assert check.check(serialised(rows(LEAST_SAMPLES - 1))) is None
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
        assert check.check(other) is None


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
    assert check.check(serialised(sent)) is not None
    for place in (0, 7, len(sent)):
        assert check.check(serialised([*sent[:place], bad(), *sent[place:]])) is None


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
    check.check(serialised(rows()))
    raw = bytearray(serialised(rows()))
    for place, value in changes:
        raw[place % len(raw)] = value
    if (found := check.check(bytes(raw))) is not None:
        messages = detection_pb2.SubmitRequest.FromString(bytes(raw)).samples
        assert check_samples(messages, RULES) == {}
        assert found.sample_ids == [message.sample_id for message in messages]
        assert found.payload_bytes == sum(len(message.payload.data) for message in messages)
