"""Settings of a group, from a command to a device that follows or refuses them."""

import asyncio
import json
import math

import pytest

from cloud.store.audit import AuditFilter, audit_page
from cloud.store.fleet import Place, set_place
from cloud.store.group_settings import GroupState, group_states
from edge.uplink.enrolment import enroll
from shared.group_settings import GroupSettings
from tests.cloud.service.edge_device import started
from vedette.v1 import fleet_pb2


@pytest.fixture
async def state(cloud, tmp_path):
    """The state folder of a device in the group presses."""
    folder = tmp_path / "state"
    await asyncio.to_thread(enroll, folder, await cloud.token("press-07"))
    await set_place(cloud.service.store, ["press-07"], Place(group="presses"))
    return folder


async def of_group(cloud, name: str = "presses") -> GroupState:
    async with cloud.service.store.reading() as connection:
        return next(item for item in await group_states(connection) if item.group == name)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_a_device_follows_its_group_and_says_so(cloud, state, group_command, tmp_path):
    async def run(*words: str) -> dict:
        result = await asyncio.to_thread(group_command, "settings", *words, "--json", str(tmp_path / "out.json"))
        assert result.exit_code == 0, result.output
        return json.loads((tmp_path / "out.json").read_bytes())["groups"]

    (listed,) = await run("presses", "--false-alarms-per-day", "3", "--audit-share", "0.1")
    assert listed["settings"] == {"false_alarms_per_day": 3.0, "audit_share": 0.1}
    assert (listed["devices"], listed["following"]) == (1, 0)
    async with started(state, router={"max_bytes_per_s": 7000}) as device:
        await device.until(lambda: device.group.router.false_alarms_per_day == 3)
        assert device.group.router.max_bytes_per_s == 7000

        async def follows() -> bool:
            return (await of_group(cloud)).following == 1

        await until(follows)
        (listed,) = await run("presses", "--unset", "audit_share")
        assert listed["settings"] == {"false_alarms_per_day": 3.0}
        await device.until(lambda: device.group.router.audit_share == 0.01)
        await set_place(cloud.service.store, ["press-07"], Place(group="default"))
        await device.until(lambda: device.group.router.false_alarms_per_day == 1)
    assert [item["group"] for item in await run()] == ["default", "presses"]
    async with cloud.service.store.reading() as connection:
        changes = await audit_page(connection, AuditFilter(action="group.settings"))
    assert changes[0].details == {
        "before": {"false_alarms_per_day": 3.0, "audit_share": 0.1},
        "after": {"false_alarms_per_day": 3.0},
    }


async def test_a_device_that_keeps_its_own_values_is_counted_as_refusing(cloud, state, group_command):
    await asyncio.to_thread(group_command, "settings", "presses", "--max-samples-per-s", "5")
    async with started(state, group_settings=False) as device:
        await device.until(lambda: device.group.refusal)

        async def refuses() -> bool:
            return (await of_group(cloud)).refusing == 1

        await until(refuses)
        assert device.group.router.max_samples_per_s == 0


async def test_a_hostile_report_of_settings_is_no_setting_in_force(cloud, device):
    for values in ({"audit_share": math.nan}, {"max_bytes_per_s": -math.inf}, {"audit_share": 3.0}):
        request = fleet_pb2.HeartbeatRequest(settings=values, settings_refusal="x" * 100_000)
        await device.fleet.Heartbeat(request)
    state = await of_group(cloud, "default")
    assert state == GroupState("default", GroupSettings(), 1, 0, 1)


async def test_commands_refuse_what_cannot_be(group_command):
    for words, reason in (
        (("presses", "--audit-share", "1.5"), "audit_share: Input should be less than or equal to 1"),
        (("presses", "--max-bytes-per-s", "nan"), "max_bytes_per_s"),
        (("presses", "--unset", "nothing"), "no such setting"),
        (("presses", "--unset", "audit_share", "--audit-share", "0.1"), "not both"),
        (("presses",), "Give a group together with the settings"),
        (("--audit-share", "0.1"), "Give a group together with the settings"),
        (("a b", "--audit-share", "0.1"), "not the name of a site or group"),
    ):
        result = await asyncio.to_thread(group_command, "settings", *words)
        assert reason in str(result.exception), words
