"""Certificates that agents renew themselves: the present one works until the new one does, whatever happens."""

import asyncio
import dataclasses
import stat
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.store.audit import AuditFilter, audit_page
from cloud.store.certificates import offer_certificate
from cloud.store.fleet import device as device_of
from cloud.store.fleet import revoke
from edge.settings import UplinkSettings
from edge.uplink.enrolment import enroll
from edge.uplink.identity import RENEWAL_FILE, RENEWED_FILE, load_identity, load_renewal
from edge.uplink.transport import GrpcTransport
from shared.errors import CertificateError
from tests.cloud.service.edge_device import started
from tests.cloud.service.harness import DeviceClient, key_pem, running, settings_for, signing_request
from tests.cloud.service.renewing import KILLED, renew
from tests.cloud.service.test_access import refusal
from tests.edge.forked import Forked
from vedette.v1 import fleet_pb2

SHORT_DAYS = 0.02  # begins an hour ago, as all do: in its last third at once
HEARTBEAT = fleet_pb2.HeartbeatRequest(query_only=True)


@pytest.fixture
async def short(tmp_path, biopsies):
    """A service whose device certificates are due for renewal at once."""
    async with running(settings_for(tmp_path, device_certificate_days=SHORT_DAYS), biopsies.key) as result:
        yield result


async def enrolled(cloud, folder: Path, device_id: str) -> Path:
    await asyncio.to_thread(enroll, folder, await cloud.token(device_id))
    return folder


async def beat(identity) -> None:
    """Send a heartbeat as this identity; raises AioRpcError."""
    transport = GrpcTransport(identity, identity.address, UplinkSettings())
    try:
        await transport.heartbeat(HEARTBEAT, 10)
    finally:
        await transport.close()


async def renewed(device: DeviceClient) -> DeviceClient:
    """Ask for a certificate for a new key, and return the device with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    answer = await device.fleet.Renew(fleet_pb2.RenewRequest(certificate_signing_request=signing_request(key)))
    return dataclasses.replace(device, key_pem=key_pem(key), certificate_pem=answer.certificate_pem, _channels=[])


async def test_an_agent_renews_its_certificate_and_goes_on_with_it(short, tmp_path):
    state = await enrolled(short, tmp_path / "state", "press-07")
    first = load_identity(state)
    async with started(state) as device:
        await device.until(lambda: device.uplink.identity.files[0].name == RENEWED_FILE)
        await device.until(lambda: device.uplink.status.connected)
    second = load_identity(state)
    assert second.key_pem != first.key_pem
    assert stat.S_IMODE(second.files[1].stat().st_mode) == 0o600
    assert not (state / "identity" / RENEWAL_FILE).exists()
    await beat(second)
    code, details = await refusal(beat(first))
    assert (code, "Use the newer one" in details) == (grpc.StatusCode.PERMISSION_DENIED, True)
    store = short.service.store
    async with store.reading() as connection:
        (entry,) = await audit_page(connection, AuditFilter(action="device.renewed"))
    known = await device_of(store, "press-07")
    assert (entry.actor, entry.details) == ("device:press-07", {"certificate_serial": known.certificate_serial})
    await asyncio.to_thread(enroll, state, await short.token("press-07"), replace=True)
    assert load_identity(state).key_pem not in (first.key_pem, second.key_pem)  # a new enrolment replaces both


@pytest.mark.parametrize("points", [7, pytest.param(None, marks=pytest.mark.long)])
async def test_a_kill_between_any_two_steps_leaves_a_working_identity(short, tmp_path, points):
    async def run(state: Path, kill_at: int | None = None, counted: Path | None = None) -> int:
        process = Forked(tmp_path / "log", renew, state, kill_at, counted)
        return await asyncio.to_thread(process.wait, 30)

    assert await run(await enrolled(short, tmp_path / "first", "press-00"), None, tmp_path / "points") == 0
    count = int((tmp_path / "points").read_text())
    assert count > 30
    for number, kill_at in enumerate(range(0, count, max(1, count // points) if points else 1)):
        state = await enrolled(short, tmp_path / f"state-{number}", f"press-{number + 1:02}")
        assert await run(state, kill_at) in (KILLED, 0)
        assert await run(state) == 0, f"killed at {kill_at}: {(tmp_path / 'log').read_text()}"
        await beat(load_identity(state))


async def test_the_old_certificate_is_valid_until_the_new_one_is_used(short):
    first = await short.device()
    forgotten = await renewed(first)  # its answer was lost
    second = await renewed(first)
    assert (await refusal(forgotten.fleet.Heartbeat(HEARTBEAT)))[0] is grpc.StatusCode.PERMISSION_DENIED
    await first.fleet.Heartbeat(HEARTBEAT)
    await second.fleet.Heartbeat(HEARTBEAT)
    await second.fleet.Heartbeat(HEARTBEAT)
    assert (await refusal(first.fleet.Heartbeat(HEARTBEAT)))[0] is grpc.StatusCode.PERMISSION_DENIED


async def test_a_revoked_device_gets_no_certificate_and_cannot_use_one(short):
    device = await short.device()
    offered = await renewed(device)
    await revoke(short.service.store, "press-07")
    await asyncio.sleep(1.1)
    for each in (device, offered):
        assert (await refusal(each.fleet.Heartbeat(HEARTBEAT)))[0] is grpc.StatusCode.PERMISSION_DENIED
        assert (await refusal(renewed(each)))[0] is grpc.StatusCode.PERMISSION_DENIED
    again = await short.device("press-07")  # enrolled again: the offer is void
    assert (await refusal(offered.fleet.Heartbeat(HEARTBEAT)))[0] is grpc.StatusCode.PERMISSION_DENIED
    await again.fleet.Heartbeat(HEARTBEAT)


async def test_a_certificate_that_is_not_due_is_not_renewed(device):
    assert (await refusal(renewed(device)))[0] is grpc.StatusCode.FAILED_PRECONDITION


async def test_renewals_of_one_device_are_bounded(short):
    hostile = await short.device("press-08")
    for data in (b"", b"garbage", b"x" * 20_000):
        request = fleet_pb2.RenewRequest(certificate_signing_request=data)
        assert (await refusal(hostile.fleet.Renew(request)))[0] is grpc.StatusCode.INVALID_ARGUMENT
    codes = [(await refusal(hostile.fleet.Renew(fleet_pb2.RenewRequest())))[0] for _ in range(4)]
    assert codes[-1] is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_renewed_certificate_that_the_service_does_not_know_is_dropped(short, tmp_path):
    state = await enrolled(short, tmp_path / "state", "press-07")
    first = load_identity(state)
    path = state / "identity" / RENEWAL_FILE
    other = await renewed(await short.device("press-08"))
    for content in (other.key_pem + other.certificate_pem, b"damaged"):
        path.write_bytes(content)
        await offer_certificate(short.service.store, "press-08", await serial_of(short, "press-08"), "void", 9e9)
        async with started(state) as device:
            await device.until(lambda: "certificate: not renewed" in device.renewal.problem)
            assert not path.exists()
            await device.until(lambda: device.uplink.status.connected)
    await beat(first)


async def serial_of(cloud, device_id: str) -> str:
    return (await device_of(cloud.service.store, device_id)).certificate_serial


async def test_after_a_long_time_off_the_renewed_certificate_replaces_an_expired_one(short, tmp_path):
    state = await enrolled(short, tmp_path / "state", "press-07")
    folder, old = state / "identity", await short.device("press-07")
    fresh = await renewed(old)
    expired = short.service._authority.sign_device(
        signing_request(ec.generate_private_key(ec.SECP256R1())), "x", -SHORT_DAYS
    )
    (folder / "device.crt").write_bytes(expired.pem)
    with pytest.raises(CertificateError):
        load_identity(state)
    (folder / RENEWAL_FILE).write_bytes(fresh.key_pem + fresh.certificate_pem)
    assert load_identity(state) == load_renewal(state)
    async with started(state) as device:
        await device.until(lambda: (folder / RENEWED_FILE).exists())
        await device.until(lambda: device.uplink.status.connected)
