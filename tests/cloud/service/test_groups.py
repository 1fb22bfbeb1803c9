"""Sites and groups of devices, and the bundles that a group gets."""

import asyncio
import time

from cloud.service.tokens import new_tokens
from cloud.store.fleet import Place, device
from cloud.store.releases import release
from tests.cloud.service.harness import enrol
from vedette.v1 import fleet_pb2


async def wanted(client) -> list[str]:
    answer = await client.fleet.Heartbeat(fleet_pb2.HeartbeatRequest(query_only=True))
    return [item.bundle_name for item in answer.desired]


async def place(cloud, device_id: str) -> tuple[str, str]:
    found = await device(cloud.service.store, device_id)
    assert found is not None
    return found.site, found.group_name


async def test_a_token_brings_site_and_group_and_one_without_them_changes_nothing(cloud):
    async def enrol_again(secret: str, where: Place) -> None:
        texts = await new_tokens(cloud.settings, {"press-07": secret}, 60, place=where)
        cloud.devices.append(await enrol(texts["press-07"]))

    await enrol_again("first", Place("hull", "presses"))
    assert await place(cloud, "press-07") == ("hull", "presses")
    await enrol_again("second", Place())
    assert await place(cloud, "press-07") == ("hull", "presses")
    await cloud.device("press-08")
    assert await place(cloud, "press-08") == ("default", "default")


async def test_only_released_groups_are_told_to_run_a_bundle(cloud, biopsies):
    first, second = await cloud.device("press-07"), await cloud.device("press-08")
    store = cloud.service.store
    assert await wanted(first) == await wanted(second) == ["biopsy"]
    before = (await first.events(1))[-1].cursor
    await release(store, "biopsy", {"presses"}, time.time())
    assert await wanted(first) == await wanted(second) == []
    (change,) = await first.events(1, cursor=before)
    assert change.bundle_changed.bundle_name == "biopsy"


async def test_commands_refuse_what_cannot_be(group_command):
    for words, reason in (
        (("set", "press-07"), "Give --site, --group or both"),
        (("set", "press-07", "--group", "a b"), "not the name of a site or group"),
        (("set", "press-07", "--group", "presses"), "No device 'press-07' is enrolled"),
        (("release", "biopsy"), "Give one of them"),
        (("release", "biopsy", "--all", "--group", "presses"), "Give one of them"),
        (("release", "nothing", "--all"), "No bundle named 'nothing'"),
    ):
        result = await asyncio.to_thread(group_command, *words)  # the service may hold the store's lock, and must go on
        assert reason in str(result.exception), words
