"""Conversion between samples, verdicts and messages."""

import math
import struct
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zstandard
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared import wire
from shared.errors import SampleRejected
from shared.images import PNG_MAGIC
from shared.modality import Modality
from shared.samples import (
    Decision,
    Opinion,
    Route,
    Sample,
    Screening,
    Values,
    Verdict,
    new_sample_id,
)
from vedette.v1 import sample_pb2


def decoded(message: sample_pb2.Sample) -> tuple[Sample, Screening]:
    """Return the sample with its values, and its screening."""
    sample, screening = wire.undecoded_from_message(message)
    return replace(sample, values=wire.decode_payload(message.payload, sample.modality)), screening


any_float32 = st.floats(width=32, allow_nan=True, allow_infinity=True)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
values_by_modality: dict[Modality, st.SearchStrategy[Values]] = {
    Modality.TABULAR: arrays(np.float32, st.integers(1, 200), elements=any_float32),
    Modality.SERIES: arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 5)), elements=any_float32),
    Modality.IMAGE: arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]))),
    Modality.VIDEO: arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.just(3))),
}
maps = st.none() | arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8)))
instants = st.floats(0, 4e9)  # to the year 2096


@st.composite
def samples(draw: st.DrawFn) -> tuple[Sample, Screening]:
    modality = draw(st.sampled_from(list(Modality)))
    values = draw(values_by_modality[modality])
    sample = Sample(new_sample_id(), draw(texts), modality, draw(instants), draw(texts), values)
    screening = Screening(
        score=draw(st.floats()),
        p_value=draw(st.floats(0, 1, exclude_min=True)),
        extrapolated=draw(st.booleans()),
        route=draw(st.sampled_from(list(Route))),
        bundle_id=draw(texts),
        calibration_id=draw(texts),
        artefact=draw(texts),
        anomaly_map=draw(maps),
    )
    return sample, screening


@st.composite
def verdicts(draw: st.DrawFn) -> Verdict:
    opinion = st.builds(Opinion, texts, st.floats(), st.floats(), st.booleans())
    return Verdict(
        sample_id=new_sample_id(),
        decision=draw(st.sampled_from(list(Decision))),
        p_value=draw(st.none() | st.floats(0, 1, exclude_min=True)),
        extrapolated=draw(st.booleans()),
        opinions=tuple(draw(st.lists(opinion, max_size=4))),
        bundle_id=draw(texts),
        judged_at_s=draw(instants),
        anomaly_map=draw(maps),
        contributions=tuple(draw(st.lists(st.tuples(texts, st.floats(0, 1)), max_size=4))),
        reason=draw(texts),
    )


def same(first: Any, second: Any) -> bool:
    """Equal to the bit: fields one by one, arrays by contents, NaN as itself."""
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()
    if isinstance(first, float):
        return struct.pack("d", first) == struct.pack("d", second)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if hasattr(first, "__dataclass_fields__"):
        names = set(first.__dataclass_fields__) - {"captured_at_s", "judged_at_s"}
        return all(same(getattr(first, name), getattr(second, name)) for name in names)
    return bool(first == second)


@given(samples())
def test_a_sample_arrives_as_it_left(pair: tuple[Sample, Screening]) -> None:
    sample, screening = pair
    data = wire.sample_to_message(sample, screening).SerializeToString()
    arrived, arrived_screening = decoded(sample_pb2.Sample.FromString(data))

    assert same(arrived, sample)
    assert same(arrived_screening, screening)
    assert arrived.captured_at_s == pytest.approx(sample.captured_at_s, abs=2e-6)
    assert arrived.values.flags.writeable or sample.modality in (Modality.IMAGE, Modality.VIDEO)


@given(verdicts())
def test_a_verdict_arrives_as_it_left(verdict: Verdict) -> None:
    data = wire.verdict_to_message(verdict).SerializeToString()
    arrived = wire.verdict_from_message(sample_pb2.Verdict.FromString(data))

    assert same(arrived, verdict)
    assert arrived.judged_at_s == pytest.approx(verdict.judged_at_s, abs=2e-6)


@pytest.mark.parametrize("seconds", [wire.EARLIEST_S, -1.5, 0.999_999_9, wire.LATEST_S])
def test_time_stamps_of_all_centuries_travel(seconds: float) -> None:
    arrived, _ = decoded(message(captured_at_s=seconds))
    assert arrived.captured_at_s == pytest.approx(seconds, abs=1e-4)


def reason_to_reject(parse: Callable[[], object]) -> str:
    """Why `parse` rejects, or an empty text; any other error goes through. The reason goes back to the sender."""
    try:
        parse()
    except (SampleRejected, DecodeError) as error:  # gRPC refuses the second kind before we see it
        return str(error)
    return ""


@given(st.binary(max_size=300))
def test_garbage_is_only_ever_rejected(data: bytes) -> None:
    assert len(reason_to_reject(lambda: decoded(sample_pb2.Sample.FromString(data)))) < 400
    assert len(reason_to_reject(lambda: wire.verdict_from_message(sample_pb2.Verdict.FromString(data)))) < 400


@given(samples(), st.data())
def test_altered_messages_are_only_ever_rejected(pair: tuple[Sample, Screening], data: st.DataObject) -> None:
    altered = bytearray(wire.sample_to_message(*pair).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    assert len(reason_to_reject(lambda: decoded(sample_pb2.Sample.FromString(bytes(altered))))) < 1000


encodings = st.sampled_from([*sample_pb2.PayloadEncoding.values(), 99])
dimensions = st.lists(st.sampled_from([0, 1, 2, 3, 8, 2**16, 2**31, 2**32 - 1]), max_size=5)
magics = st.sampled_from([b"", PNG_MAGIC, b"\xff\xd8\xff\xe0", zstandard.compress(bytes(12))])


@given(encodings, magics, st.binary(max_size=200), dimensions, st.sampled_from(list(Modality)))
def test_payloads_of_garbage_are_only_ever_rejected(
    encoding: Any, magic: bytes, data: bytes, shape: list[int], modality: Modality
) -> None:
    payload = sample_pb2.Payload(encoding=encoding, data=magic + data, shape=shape)
    assert len(reason_to_reject(lambda: wire.decode_payload(payload, modality))) < 400


def message(captured_at_s: float = 1.7e9, values: Values | None = None, **changes: Any) -> sample_pb2.Sample:
    sample = Sample(
        sample_id=new_sample_id(),
        source_id="press",
        modality=Modality.TABULAR,
        captured_at_s=captured_at_s,
        origin="readings.csv:7",
        values=np.zeros(4, np.float32) if values is None else values,
    )
    screening = Screening(
        1.0, 0.5, False, Route.FORWARD, "press-1-abc", "cal", "int8_openvino", np.zeros((2, 2), np.uint8)
    )
    result = wire.sample_to_message(sample, screening)
    result.MergeFrom(sample_pb2.Sample(**changes))
    return result


LONG = "x" * (wire.MAX_TEXT_CHARACTERS + 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modality": 0}, None),  # merging a zero changes nothing: the message stays good
        ({"modality": 77}, "modality 77"),
        ({"source_id": "press\0"}, "NUL character"),
        ({"screening": sample_pb2.Screening(route=9)}, "route 9"),
        ({"sample_id": b"short"}, "UUIDv7"),
        ({"sample_id": uuid.uuid4().bytes}, "UUIDv7"),
        ({"source_id": LONG}, "longer than"),
        ({"origin": LONG}, "longer than"),
        ({"screening": sample_pb2.Screening(bundle_id=LONG)}, "longer than"),
        ({"screening": sample_pb2.Screening(artefact=LONG)}, "longer than"),
        ({"screening": sample_pb2.Screening(calibration_id=LONG)}, "longer than"),
        ({"screening": sample_pb2.Screening(p_value=math.nan)}, "p-value"),
        ({"screening": sample_pb2.Screening(p_value=-0.1)}, "p-value"),
        ({"screening": sample_pb2.Screening(p_value=1.01)}, "p-value"),
        ({"screening": sample_pb2.Screening(anomaly_map=sample_pb2.AnomalyMap(height=3))}, "anomaly map"),
        (
            {"screening": sample_pb2.Screening(anomaly_map=sample_pb2.AnomalyMap(height=2**32 - 1, width=2**31))},
            "anomaly",
        ),
        ({"payload": sample_pb2.Payload(shape=[4])}, "shape has 2 dimensions"),
        ({"payload": sample_pb2.Payload(data=bytes(12))}, "payload of 12 bytes"),
        ({"payload": sample_pb2.Payload(encoding=3)}, "does not fit"),
        ({"payload": sample_pb2.Payload(encoding=50)}, "does not fit"),
        ({"captured_at": {"seconds": 2**60}}, "calendar"),
        ({"captured_at": {"nanos": -5}}, "calendar"),
    ],
)
def test_a_message_that_breaks_a_rule_is_rejected_with_a_reason(changes: dict[str, Any], reason: str | None) -> None:
    broken = message(**changes)
    if reason is None:
        decoded(broken)
        return
    with pytest.raises(SampleRejected, match=reason):
        decoded(broken)


def test_a_missing_field_is_rejected() -> None:
    for name, reason in (("modality", "unknown"), ("route", "unknown"), ("p_value", "p-value"), ("payload", "shape")):
        broken = message()
        (broken.screening if name in ("route", "p_value") else broken).ClearField(name)
        with pytest.raises(SampleRejected, match=reason):
            decoded(broken)


def test_an_unknown_decision_is_undecided_and_never_normal() -> None:
    sent = sample_pb2.Verdict(sample_id=new_sample_id().bytes, decision=8)
    assert wire.verdict_from_message(sent).decision is Decision.UNDECIDED
    sent.ClearField("decision")
    assert wire.verdict_from_message(sent).decision is Decision.UNDECIDED


def _older_verdict() -> Any:
    """The message `Verdict` of versions in which its p-value was not optional."""
    older = descriptor_pb2.FileDescriptorProto()
    sample_pb2.DESCRIPTOR.CopyToProto(older)
    message_type = next(item for item in older.message_type if item.name == "Verdict")
    field = next(item for item in message_type.field if item.name == "p_value")
    field.ClearField("proto3_optional")
    field.ClearField("oneof_index")
    del message_type.oneof_decl[:]
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(older)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("vedette.v1.Verdict"))


@pytest.mark.parametrize(("p_value", "as_an_older_device_reads_it"), [(0.25, 0.25), (1e-12, 1e-12), (None, 0.0)])
def test_devices_and_services_of_older_versions_read_a_p_value_or_none(
    p_value: float | None, as_an_older_device_reads_it: float
) -> None:
    older = _older_verdict()
    sent = wire.verdict_to_message(Verdict(new_sample_id(), p_value=p_value)).SerializeToString()
    assert (struct.pack("<Bd", 3 << 3 | 1, p_value or 0.0) in sent) == (p_value is not None)
    received = older.FromString(sent)
    assert received.p_value == as_an_older_device_reads_it
    assert not received.DESCRIPTOR.fields_by_name["p_value"].has_presence
    of_older_service = sample_pb2.Verdict.FromString(received.SerializeToString())
    assert wire.verdict_from_message(of_older_service).p_value == p_value


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 1e18, -1e12])
def test_an_instant_outside_the_calendar_does_not_leave_the_device(seconds: float) -> None:
    with pytest.raises(SampleRejected, match="calendar"):
        message(captured_at_s=seconds)


def test_a_long_path_or_one_that_is_no_unicode_still_travels() -> None:
    sample = Sample(new_sample_id(), "cam", Modality.TABULAR, 0.0, "", np.zeros(1, np.float32))
    screening = Screening(1.0, 0.5, False, Route.FORWARD, "", "", "")
    for origin, ending in (
        ("/deep" * 200 + "/a.png", "/a.png"),
        (b"/data/caf\xe9.png".decode("utf-8", "surrogateescape"), ".png"),
    ):
        named = Sample(sample.sample_id, "cam", Modality.TABULAR, 0.0, origin, sample.values)
        data = wire.sample_to_message(named, screening).SerializeToString()
        arrived, _ = decoded(sample_pb2.Sample.FromString(data))
        assert arrived.origin.endswith(ending)
        assert len(arrived.origin) <= wire.MAX_TEXT_CHARACTERS


def test_anomaly_maps_within_the_limit_travel_and_others_do_not_leave() -> None:
    verdict = Verdict(new_sample_id(), Decision.NORMAL, 0.5, False, (), "", 0.0, np.zeros((1024, 1024), np.uint8))
    arrived = wire.verdict_from_message(wire.verdict_to_message(verdict)).anomaly_map
    assert arrived is not None
    assert arrived.shape == (1024, 1024)
    for broken in (
        np.zeros((1025, 1024), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((2, 2)),
        np.zeros((0, 3), np.uint8),
    ):
        with pytest.raises(SampleRejected, match="anomaly map"):
            wire.verdict_to_message(Verdict(verdict.sample_id, Decision.NORMAL, 0.5, False, (), "", 0.0, broken))
