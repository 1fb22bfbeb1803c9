"""Settings of the device's group: bounds, persistence, and their effect on a running agent."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edge.operation.inspection import read_status, status_lines
from edge.routing.budget import UplinkLoad, UploadBudget
from edge.routing.router import ALARM, AUDIT, RateMeter, Router
from edge.settings import RouterSettings
from edge.uplink.group_settings import MAX_FILE_BYTES, SETTINGS_FILE, FollowedSettings
from shared.group_settings import GroupSettings
from tests.edge.clock import Clock
from tests.edge.cloud_double import CloudDouble
from tests.edge.conftest import Enrol
from tests.edge.test_agent import logged
from vedette.v1 import fleet_pb2

LOCAL = RouterSettings(audit_share=0.05, max_bytes_per_s=1000)


def test_values_of_the_group_replace_those_of_the_file_until_they_are_unset(tmp_path: Path) -> None:
    seen: list[RouterSettings] = []
    followed = FollowedSettings(tmp_path, LOCAL)
    followed.on_change = seen.append
    assert followed.follow(fleet_pb2.GroupSettings(audit_share=0.2))
    assert not followed.follow(fleet_pb2.GroupSettings(audit_share=0.2))
    assert followed.router == LOCAL.model_copy(update={"audit_share": 0.2})
    again = FollowedSettings(tmp_path, LOCAL)  # after a restart without a link
    assert again.router == followed.router
    assert again.in_force == GroupSettings(
        audit_share=0.2, false_alarms_per_day=1.0, max_samples_per_s=0.0, max_bytes_per_s=1000.0, max_miss_rate=0.0
    )
    assert followed.follow(fleet_pb2.GroupSettings())
    assert followed.router == FollowedSettings(tmp_path, LOCAL).router == LOCAL
    assert seen[-1] == LOCAL
    assert len(seen) == 2


@pytest.mark.parametrize(
    "hostile",
    [
        {"audit_share": 1.01},
        {"audit_share": -0.1},
        {"audit_share": math.nan},
        {"false_alarms_per_day": math.inf},
        {"false_alarms_per_day": 1e7},
        {"max_samples_per_s": -1.0},
        {"max_bytes_per_s": 1e13},
    ],
)
def test_settings_out_of_range_are_refused_as_a_whole_with_a_reason(tmp_path: Path, hostile: dict[str, float]) -> None:
    followed = FollowedSettings(tmp_path, LOCAL)
    followed.follow(fleet_pb2.GroupSettings(audit_share=0.2))
    good = {"audit_share": 0.3, "max_samples_per_s": 5.0}
    assert followed.follow(fleet_pb2.GroupSettings(**(good | hostile)))
    assert min(hostile) in followed.refusal
    assert followed.router.audit_share == FollowedSettings(tmp_path, LOCAL).router.audit_share == 0.2
    assert followed.follow(fleet_pb2.GroupSettings(audit_share=0.2))
    assert followed.refusal == ""


def test_a_file_that_is_damaged_or_too_large_counts_as_none(tmp_path: Path) -> None:
    for content in (b"{", b'{"audit_share": 7}', b"\xff", b" " * MAX_FILE_BYTES + b"{}"):
        (tmp_path / SETTINGS_FILE).write_bytes(content)
        assert FollowedSettings(tmp_path, LOCAL).router == LOCAL


def test_settings_that_cannot_be_stored_are_not_in_force(tmp_path: Path) -> None:
    followed = FollowedSettings(tmp_path, LOCAL)
    (tmp_path / SETTINGS_FILE).mkdir()
    assert followed.follow(fleet_pb2.GroupSettings(audit_share=0.2))
    assert followed.refusal.startswith("not stored")
    assert followed.router == LOCAL


def test_a_router_and_a_budget_in_use_adopt_other_settings() -> None:
    clock, settings = Clock(), RouterSettings(audit_share=0, max_samples_per_s=100, burst_s=1, seed=0)
    budget = UploadBudget(settings, clock)
    router = Router(settings, "plant", RateMeter(10.0, clock), budget)
    p_values = np.linspace(1e-4, 1, 1000)
    before = Counter(router.select(p_values).codes.tolist())
    assert before[ALARM] == before[AUDIT] == 0
    changed = settings.model_copy(
        update={"audit_share": 0.5, "false_alarms_per_day": 8640, "max_samples_per_s": 12.0, "max_bytes_per_s": 50.0}
    )
    router.settings = changed
    budget.configure(changed)
    after = Counter(router.select(p_values).codes.tolist())
    assert after[ALARM] == 10  # p-values up to 0.01
    assert after[AUDIT] == pytest.approx(475, abs=60)
    assert budget.grant(np.ones(50), drawn=50).drawn == 12
    budget.follow(UplinkLoad(0, 0.0, connected=True, throughput_bytes_per_s=0, round_trip_s=0))
    assert budget.bytes_per_s == 50


@pytest.mark.system
def test_a_running_agent_applies_and_reports_the_settings_of_its_group(cloud: CloudDouble, enrol: Enrol) -> None:
    device = enrol(cloud.address)
    device.settings["sources"][0] |= {"loop": True, "rate_per_s": 400}
    device.start()
    device.until(lambda: cloud.heartbeats and len(logged(device)) > 400)
    assert cloud.heartbeats[-1].settings == fleet_pb2.GroupSettings(
        audit_share=0.01, false_alarms_per_day=1, max_samples_per_s=0, max_bytes_per_s=0, max_miss_rate=0
    )
    few = sum(row["route"] == "audit" for row in logged(device)[:400])
    cloud.group_settings = fleet_pb2.GroupSettings(audit_share=0.5)
    device.until(lambda: cloud.heartbeats[-1].settings.audit_share == 0.5)
    count = len(logged(device))
    device.until(lambda: len(logged(device)) > count + 800)
    many = sum(row["route"] == "audit" for row in logged(device)[count + 400 :])
    assert few < 20 < 100 < many
    assert any("audit_share = 0.5" in line for line in status_lines(read_status(device.state)))
    device.until(lambda: cloud.heartbeats[-1].running[0].missed.audits > 20)
    (missed,) = [line for line in status_lines(read_status(device.state)) if line.startswith("misses")]
    assert "% of the accepted samples so far (95 %), from" in missed
    cloud.group_settings = fleet_pb2.GroupSettings(audit_share=-1)
    device.until(lambda: "audit_share" in cloud.heartbeats[-1].settings_refusal)
    assert cloud.heartbeats[-1].settings.audit_share == 0.5
