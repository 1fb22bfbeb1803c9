"""Status and heartbeat survive writing and reading, also by an older or newer version."""

import json
from pathlib import Path

import pytest

from shared.errors import DataError
from shared.status import (
    STATUS_FILE,
    AgentStatus,
    Heartbeat,
    HeartbeatCounters,
    LatencyStatus,
    MissReport,
    RunningBundle,
    SourceStatus,
    SpoolStatus,
    read_status_file,
)
from vedette.v1 import fleet_pb2

STATUS = AgentStatus(
    device_id="press-07",
    process_id=7,
    written_at_s=12.5,
    spool=SpoolStatus(samples=3, bytes=900, pending=1, dropped=2, error="disk full"),
    sources={"cam": SourceStatus(bundle_id="press-1-abc", state="running", health="running")},
    latency_ms={"screen": LatencyStatus(p50=1.5, p99=None, samples=4)},
    problems=("spool: disk full",),
)


def test_a_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / STATUS_FILE).write_bytes(STATUS.to_json())
    assert read_status_file(tmp_path) == STATUS


def test_a_status_of_another_version_is_read(tmp_path: Path) -> None:
    written = {"device_id": "press-07", "process_id": 7, "written_at_s": 12.5, "counters": {"verdicts": 3, "new": 1}}
    (tmp_path / STATUS_FILE).write_text(json.dumps(written))
    status = read_status_file(tmp_path)
    assert status.counters.verdicts == 3
    assert status.spool == SpoolStatus()


@pytest.mark.parametrize("text", ["", "[]", '{"device_id": "press-07"}', "{"])
def test_a_file_that_is_no_status_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / STATUS_FILE).write_text(text)
    with pytest.raises(DataError, match="no status"):
        read_status_file(tmp_path)


def test_a_source_runs_only_if_it_and_its_pipeline_do() -> None:
    assert SourceStatus(state="running", health="running").is_running
    assert not SourceStatus(state="running", health="stalled").is_running
    assert not SourceStatus(state="swapping", health="running").is_running


def test_a_heartbeat_survives_the_wire_whole() -> None:
    heartbeat = Heartbeat(
        agent_version="1.2",
        counters=HeartbeatCounters(**{name: 10 + at for at, name in enumerate(HeartbeatCounters.model_fields)}),
        running=(
            RunningBundle(
                source_id="cam",
                bundle_name="press",
                bundle_id="press-1-abc",
                artefact="int8",
                missed=MissReport(audits=9, anomalous=2, unknown=1, audit_share=0.01, limit_words="holds"),
            ),
        ),
        spool_samples=5,
        spool_bytes=2**64 - 1,
        warnings=("spool full",),
    )
    message = fleet_pb2.HeartbeatRequest.FromString(heartbeat.to_message().SerializeToString())
    assert Heartbeat.from_message(message) == heartbeat


def test_the_models_name_every_field_of_the_wire() -> None:
    for model, descriptor in (
        (Heartbeat, fleet_pb2.HeartbeatRequest.DESCRIPTOR),
        (HeartbeatCounters, fleet_pb2.Counters.DESCRIPTOR),
        (RunningBundle, fleet_pb2.RunningBundle.DESCRIPTOR),
        (MissReport, fleet_pb2.MissReport.DESCRIPTOR),
    ):
        assert list(model.model_fields) == [
            field.name for field in descriptor.fields if field.name != "query_only"
        ]  # a question stores no heartbeat
