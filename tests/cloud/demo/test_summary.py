"""The demo's figures are what their names say."""

from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from cloud.demo.streams import DevicePlan, TableStream
from cloud.demo.summary import Screened, device_summary, read_screening_log, total_summary
from shared.bundle import InputSpec
from shared.modality import Modality
from shared.samples import Decision, Route
from shared.status import AgentCounters, AgentStatus, LatencyStatus, SourceStatus

LABELS = [False, False, True, True]
P_VALUES = [0.5, 0.04, 0.001, 0.6]
STATUS = AgentStatus(
    device_id="d",
    process_id=1,
    written_at_s=0.0,
    counters=AgentCounters(
        samples_screened=4, samples_forwarded=2, samples_alarmed=1, bytes_screened=400, bytes_uploaded=200
    ),
    latency_ms={
        "screen": LatencyStatus(p50=1.0, p99=2.0, samples=4),
        "sample_to_verdict": LatencyStatus(p50=10.0, p99=30.0, samples=4),
    },
    sources={"d": SourceStatus(bundle_id="pump-1-00000000")},
)


def plan() -> DevicePlan:
    stream = TableStream(Path("rows.csv"), np.zeros((4, 1), np.float32), np.array(LABELS))
    return DevicePlan("d", Modality.TABULAR, "pump", Path("train.csv"), stream, 1.0, "test")


def screened() -> list[Screened]:
    routes = [Route.ACCEPT, Route.FORWARD, Route.ALARM, Route.ACCEPT]
    return [
        Screened(f"rows.csv:{i + 1}", p, route, None if route is Route.ACCEPT else UUID(int=i))
        for i, (p, route) in enumerate(zip(P_VALUES, routes, strict=True))
    ]


def summary(decisions: dict[UUID, Decision | None]) -> dict[str, object]:
    return device_summary(plan(), STATUS, screened(), InputSpec(), decisions, np.array([0.0, 0.1, 0.9, 0.8]))


def test_a_device_with_all_verdicts() -> None:
    result = summary({UUID(int=1): Decision.NORMAL, UUID(int=2): Decision.ANOMALOUS})
    assert result["samples_lost"] == 0
    assert result["samples_forwarded"] == 2
    assert result["upload_ratio"] == 0.5
    assert result["verdicts"] == 2
    assert result["edge_auroc"] == 0.5  # of four pairs, two are in order
    assert result["fused_auroc"] == 1.0
    assert result["cascade_recall"] == 0.5  # the one that was accepted is missed
    assert result["false_alarm_rate"] == 0.0


def test_a_routed_sample_without_a_record_is_lost_and_one_without_a_verdict_is_not() -> None:
    result = summary({UUID(int=2): None})
    assert result["samples_lost"] == 1
    assert result["verdicts"] == 0
    assert result["cascade_recall"] == 0.0


def test_a_sample_the_analyzers_cannot_score_ranks_above_all_others() -> None:
    result = device_summary(plan(), STATUS, screened(), InputSpec(), {}, np.array([0.0, 0.1, np.inf, 0.8]))
    assert result["fused_auroc"] == 1.0


def test_an_undecided_verdict_is_counted_as_such() -> None:
    result = summary({UUID(int=1): Decision.UNDECIDED, UUID(int=2): Decision.ANOMALOUS})
    assert result["samples_undecided"] == 1
    assert total_summary({"a": result, "b": result})["samples_undecided"] == 2


def test_the_total_sums_counts_and_averages_auroc() -> None:
    device = summary({UUID(int=1): Decision.ANOMALOUS, UUID(int=2): Decision.ANOMALOUS})
    total = total_summary({"a": device, "b": {**device, "fused_auroc": None, "edge_auroc": 1.0}})
    assert total["samples_screened"] == 8
    assert total["fused_auroc"] == 1.0
    assert total["edge_auroc"] == 0.75
    assert total["false_alarm_rate"] == pytest.approx(0.5)
    assert total["sample_to_verdict_ms"] == {"p50": 10.0, "p99": 30.0}


def test_the_screening_log_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "origin,score,p_value,route,sample_id\n"
        "a.csv:1,0.1,0.5,accept,\n"
        "a.csv:2,9.0,0.001,forward,01890000-0000-7000-8000-000000000000\n"
    )
    first, second = read_screening_log(path)
    assert (first.route, first.sample_id) == (Route.ACCEPT, None)
    assert (second.p_value, second.sample_id) == (0.001, UUID("01890000-0000-7000-8000-000000000000"))
