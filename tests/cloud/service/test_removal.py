"""Removal of a device with its data, beside a running service and after kills."""

import asyncio
import json
import time
import uuid

import grpc
import pytest
from sqlalchemy import String, cast, func, insert, select
from typer.testing import CliRunner

from cloud.service import removals
from cloud.service.access import CACHED_S
from cloud.store import Store, removal
from cloud.store.audit import AuditFilter, audit_page
from cloud.store.fleet_queries import device_ids, device_rows
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.outbox import add_deliveries
from cloud.store.removal import begin_removal
from cloud.store.schema import deliveries, metadata, notices, samples
from shared.cli import build
from tests.cloud.service.harness import enrol, message
from tests.cloud.service.test_access import refusal
from vedette.v1 import fleet_pb2

HEARTBEAT = fleet_pb2.HeartbeatRequest()


async def fill(cloud, biopsies, device_id: str, count: int = 5) -> list[uuid.UUID]:
    """Judged samples of a device with a label, heartbeat, open token, notice and messages; return their ids."""
    device = await cloud.device(device_id)
    await device.fleet.Heartbeat(HEARTBEAT)
    sent = [message(row) for row in biopsies.normal[:count]]
    await device.submit(sent)
    assert len(await device.verdicts(count)) == count
    ids = [uuid.UUID(bytes=item.sample_id) for item in sent]
    await add_label(cloud.service.store, ids[0], NewLabel(Label.REAL, "Ada"), "api:CI")
    await cloud.token(device_id)
    notice = {"kind": "device_silent", "subject": device_id}
    row = {**notice, "notice_id": str(uuid.uuid4()), "text": "", "opened_at_s": 0.0, "closed_at_s": time.time()}
    async with cloud.service.store.writing() as connection:
        await connection.execute(insert(notices).values(row))
        for waiting in (notice, {"event": "verdict", "device_id": device_id}):
            await add_deliveries(connection, ["hook"], waiting)
    return ids


@pytest.fixture(autouse=True)
def removals_go_on_at_once(monkeypatch):
    """A running service looks for removals five times a second, and waits 1.5 s for open requests."""
    monkeypatch.setattr(removals, "CHECK_EVERY_S", 0.2)
    monkeypatch.setattr(removal, "GRACE_S", 1.5)


async def rows_of(store: Store, device_id: str) -> dict[str, int]:
    """The number of rows of each table that hold something of the device."""
    found = {}
    own = select(samples.c.number).where(samples.c.device_id == device_id)
    async with store.reading() as connection:
        for table in metadata.sorted_tables:
            if "device_id" in table.c:
                which = table.c.device_id == device_id
            elif "sample_number" in table.c:
                which = table.c.sample_number.in_(own)
            elif table.name in ("payloads", "verdicts", "anomaly_maps"):
                which = table.c.number.in_(own)
            elif table is notices:
                which = table.c.subject == device_id
            elif table is deliveries:
                which = cast(table.c.message, String).contains(device_id)
            else:
                continue
            if count := (await connection.execute(select(func.count()).select_from(table).where(which))).scalar_one():
                found[table.name] = count
    return found


def call(cloud, tmp_path, *words: str):
    config = tmp_path / "cloud.toml"
    config.write_text(f'data_dir = "{cloud.settings.data_dir}"\n')
    return CliRunner().invoke(build("cloud").root, ["cloud", "devices", "remove", *words, "--config", str(config)])


async def test_a_removed_device_leaves_nothing_and_takes_nothing_of_others(cloud, biopsies, tmp_path):
    await fill(cloud, biopsies, "press-07")
    await fill(cloud, biopsies, "press-08")
    store, client = cloud.service.store, cloud.devices[0]
    other = await rows_of(store, "press-08")
    assert {"samples", "payloads", "verdicts", "labels", "heartbeats", "tokens", "events", "notices"} <= set(other)
    assert other["deliveries"] == 2
    result = await asyncio.to_thread(call, cloud, tmp_path, "press-07", "--json", str(tmp_path / "out.json"))
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out.json").read_bytes())["done"]
    assert await rows_of(store, "press-07") == {}
    assert await rows_of(store, "press-08") == other
    await asyncio.sleep(CACHED_S + 0.1)
    code, _ = await refusal(client.fleet.Heartbeat(HEARTBEAT))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    async with store.reading() as connection:
        entries = await audit_page(connection, AuditFilter(subject="press-07"), size=2)
    assert [entry.action for entry in entries] == ["device.data_removed", "device.removed"]
    assert "is enrolled" in str((await asyncio.to_thread(call, cloud, tmp_path, "press-09")).exception)
    await cloud.device("press-07")  # it may come back, as a new device


async def test_kept_verdicts_stay_without_payloads_and_the_device_is_in_no_list(cloud, biopsies, tmp_path):
    await fill(cloud, biopsies, "press-07")
    store = cloud.service.store
    before = await rows_of(store, "press-07")
    assert (await asyncio.to_thread(call, cloud, tmp_path, "press-07", "--keep-verdicts")).exit_code == 0
    gone = {"payloads", "heartbeats", "heartbeat_history", "tokens", "events", "notices", "deliveries"}
    assert await rows_of(store, "press-07") == {name: count for name, count in before.items() if name not in gone}
    async with store.reading() as connection:
        assert await device_ids(connection) == ()
        assert await device_rows(connection) == ()
    await begin_removal(store, "press-07", keep_verdicts=False)  # and later the rest
    async with asyncio.timeout(20):
        while await rows_of(store, "press-07"):  # by the running service
            await asyncio.sleep(0.2)


async def test_a_device_cannot_enrol_while_its_data_is_being_removed(cloud):
    await cloud.device("press-07")
    token = await cloud.token("press-07")
    await begin_removal(cloud.service.store, "press-07", keep_verdicts=False)
    with pytest.raises(grpc.aio.AioRpcError):  # its unspent tokens are void
        await enrol(token)
    with pytest.raises(grpc.aio.AioRpcError, match="being removed"):
        await cloud.device("press-07")
