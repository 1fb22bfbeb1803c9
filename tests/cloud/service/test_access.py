"""Only enrolled devices with a valid certificate get in, and lose their access within seconds."""

import asyncio
import base64
import dataclasses

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cloud.service.authority import Authority
from cloud.store.fleet import revoke
from shared.enrolment import EnrolmentToken
from shared.signing_keys import parse_public_key
from tests.cloud.service.harness import enrol, key_pem, message, running, settings_for, signing_request
from vedette.v1 import detection_pb2, fleet_pb2, fleet_pb2_grpc

HEARTBEAT = fleet_pb2.HeartbeatRequest(agent_version="0.1.0")


async def refusal(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code(), refused.value.details()


def certified(device, authority: Authority, device_id: str):
    """The device with a certificate that `authority` makes now, past the service."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = authority.sign_device(signing_request(key), device_id)
    return dataclasses.replace(device, key_pem=key_pem(key), certificate_pem=made.pem, _channels=[])


async def test_an_enrolled_device_comes_in_and_trusts_the_keys_it_was_given(device, biopsies):
    answer = await device.fleet.Heartbeat(HEARTBEAT)
    assert [desired.bundle_name for desired in answer.desired] == ["biopsy"]
    assert device.device_id == "press-07"


async def test_the_bundle_key_of_the_answer_is_the_one_that_signs(cloud, biopsies):
    token = EnrolmentToken.from_text(await cloud.token("press-09"))
    credentials = grpc.ssl_channel_credentials(token.ca_certificate_pem.encode())
    async with grpc.aio.secure_channel(token.enrolment_address, credentials) as channel:
        request = fleet_pb2.EnrollRequest(
            token=token.secret,
            certificate_signing_request=signing_request(ec.generate_private_key(ec.SECP384R1())),
        )
        answer = await fleet_pb2_grpc.FleetStub(channel).Enroll(request)
    assert parse_public_key(answer.bundle_key_pem) == biopsies.key.public_key()


async def test_a_certificate_of_a_foreign_authority_gets_no_connection(device, tmp_path):
    foreign = certified(device, Authority.open(tmp_path / "elsewhere"), "press-07")
    code, details = await refusal(foreign.fleet.Heartbeat(HEARTBEAT, timeout=5))
    assert code is grpc.StatusCode.UNAVAILABLE, details


async def test_without_a_certificate_there_is_no_connection(device):
    credentials = grpc.ssl_channel_credentials(device.ca_pem)
    async with grpc.aio.secure_channel(device.address, credentials) as channel:
        code, _ = await refusal(fleet_pb2_grpc.FleetStub(channel).Heartbeat(HEARTBEAT, timeout=5))
    assert code is grpc.StatusCode.UNAVAILABLE


async def test_the_enrolment_port_takes_nothing_but_enrolments(cloud, device):
    credentials = grpc.ssl_channel_credentials(device.ca_pem)
    async with grpc.aio.secure_channel(cloud.service.addresses.enrolment_address, credentials) as channel:
        stub = fleet_pb2_grpc.FleetStub(channel)
        assert (await refusal(stub.Heartbeat(HEARTBEAT)))[0] is grpc.StatusCode.UNAUTHENTICATED
        fetched = stub.FetchBundle(fleet_pb2.FetchBundleRequest(bundle_id="x"))
        assert (await refusal(fetched.read()))[0] is grpc.StatusCode.UNAUTHENTICATED
    assert (await refusal(device.fleet.Enroll(fleet_pb2.EnrollRequest())))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_a_device_nobody_enrolled_is_refused_by_every_call(cloud, device, biopsies):
    stranger = certified(device, Authority.open(cloud.settings.data_dir), "stranger")
    watching = stranger.detection.Watch(detection_pb2.WatchRequest())
    calls = [
        stranger.fleet.Heartbeat(HEARTBEAT),
        stranger.submit([message(biopsies.normal[0])]),
        watching.read(),
        stranger.fleet.FetchBundle(fleet_pb2.FetchBundleRequest(bundle_id="x")).read(),
    ]
    for call in calls:
        code, details = await refusal(call)
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "'stranger' is not enrolled" in details
    await stranger.close()


async def test_the_services_own_certificate_opens_nothing(cloud, device):
    pem = (cloud.settings.data_dir / "pki" / "server.pem").read_bytes()
    impostor = dataclasses.replace(device, key_pem=pem, certificate_pem=pem, _channels=[])
    code, _ = await refusal(impostor.fleet.Heartbeat(HEARTBEAT, timeout=5))
    assert code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE)
    await impostor.close()


async def test_a_revoked_device_is_shut_out_in_the_middle_of_a_stream(cloud, device):
    watching = asyncio.create_task(device.events(99))
    await asyncio.sleep(0.3)
    await revoke(cloud.service.store, device.device_id)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await asyncio.wait_for(watching, 5)
    assert ended.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "revoked" in ended.value.details()
    assert (await refusal(device.fleet.Heartbeat(HEARTBEAT)))[0] is grpc.StatusCode.PERMISSION_DENIED


async def test_the_calls_of_an_expired_certificate_end(cloud, monkeypatch):
    sign = Authority.sign_device
    monkeypatch.setattr(Authority, "sign_device", lambda self, pem, name, days: sign(self, pem, name, 3 / 86_400))
    device = await cloud.device("press-16")
    watching = device.detection.Watch(detection_pb2.WatchRequest())
    assert (await watching.read()).WhichOneof("event") == "bundle_changed"
    code, details = await refusal(asyncio.wait_for(watching.read(), 10))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "expired" in details


async def test_enrolments_that_fail_are_limited_by_address_and_cost_no_transaction(tmp_path, biopsies):
    settings = settings_for(tmp_path, limits={"enrolments_per_minute": 3})
    async with running(settings, biopsies.key) as cloud:
        good, bad = await cloud.token("press-17"), _altered(await cloud.token("press-18"))
        async with cloud.service.store.writing():  # an enrolment that wanted to write would wait here
            codes = [(await refusal(enrol(bad)))[0] for _ in range(5)]
        assert codes == [grpc.StatusCode.PERMISSION_DENIED] * 3 + [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await enrol(good)
        assert 0 < int(dict(refused.value.trailing_metadata())["grpc-retry-pushback-ms"]) <= 20_000


async def test_any_number_of_devices_behind_one_address_enrols(tmp_path, biopsies):
    async with running(settings_for(tmp_path, limits={"enrolments_per_minute": 1}), biopsies.key) as cloud:
        for number in range(3):
            assert (await cloud.device(f"press-{number}")).device_id == f"press-{number}"


async def test_a_new_enrolment_ends_the_streams_of_the_old_certificate(cloud, device):
    watching = asyncio.create_task(device.events(99))
    await asyncio.sleep(0.3)
    await cloud.device()
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await asyncio.wait_for(watching, 5)
    assert ended.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "enrolled again" in ended.value.details()


async def test_a_new_enrolment_replaces_the_old_certificate_and_lifts_a_revocation(cloud, device):
    await revoke(cloud.service.store, device.device_id)
    again = await cloud.device()
    assert await again.fleet.Heartbeat(HEARTBEAT)
    code, details = await refusal(device.fleet.Heartbeat(HEARTBEAT))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "enrolled again" in details


async def test_a_token_is_spent_once_even_by_two_at_the_same_time(cloud):
    token = await cloud.token("press-10")
    results = await asyncio.gather(*(enrol(token) for _ in range(4)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
    assert len(refused) == 3
    assert {result.code() for result in refused} == {grpc.StatusCode.PERMISSION_DENIED}
    assert "spent already" in refused[0].details()


async def test_an_expired_or_unknown_token_enrols_nobody(cloud, biopsies):
    expired = await cloud.token("press-11", valid_s=-1)
    for token, expected in ((expired, "expired"), (_altered(await cloud.token("press-12")), "does not know the token")):
        code, details = await refusal(enrol(token))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert expected in details


async def test_a_bad_signing_request_does_not_spend_the_token(cloud):
    text = await cloud.token("press-13")
    token = EnrolmentToken.from_text(text)
    weak = signing_request(rsa.generate_private_key(public_exponent=65537, key_size=1024))
    forged = _forged(signing_request(ec.generate_private_key(ec.SECP256R1())))
    credentials = grpc.ssl_channel_credentials(token.ca_certificate_pem.encode())
    async with grpc.aio.secure_channel(token.enrolment_address, credentials) as channel:
        stub = fleet_pb2_grpc.FleetStub(channel)
        for request in (b"", b"garbage", weak, forged, b"x" * 50_000):
            enrolment = fleet_pb2.EnrollRequest(token=token.secret, certificate_signing_request=request)
            assert (await refusal(stub.Enroll(enrolment)))[0] is grpc.StatusCode.PERMISSION_DENIED
    assert (await enrol(text)).device_id == "press-13"


async def test_the_name_in_a_signing_request_is_ignored(cloud, device):
    token = EnrolmentToken.from_text(await cloud.token("press-14"))
    key = ec.generate_private_key(ec.SECP256R1())
    credentials = grpc.ssl_channel_credentials(token.ca_certificate_pem.encode())
    async with grpc.aio.secure_channel(token.enrolment_address, credentials) as channel:
        request = fleet_pb2.EnrollRequest(
            token=token.secret, certificate_signing_request=signing_request(key, name="press-07")
        )
        answer = await fleet_pb2_grpc.FleetStub(channel).Enroll(request)
    assert answer.device_id == "press-14"


async def test_only_a_hash_of_the_secret_is_kept(cloud):
    secret = EnrolmentToken.from_text(await cloud.token("press-15")).secret
    for path in cloud.settings.data_dir.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()


async def test_keys_are_for_the_owner_only(cloud):
    pki = cloud.settings.data_dir / "pki"
    for name in ("ca.key", "server.pem"):
        assert (pki / name).stat().st_mode & 0o777 == 0o600
    key = serialization.load_pem_private_key((pki / "ca.key").read_bytes(), None)
    assert isinstance(key.curve, ec.SECP256R1)


def _forged(request_pem: bytes) -> bytes:
    """The request with another name, so that its signature no longer fits."""
    raw = x509.load_pem_x509_csr(request_pem).public_bytes(serialization.Encoding.DER)
    text = base64.encodebytes(raw.replace(b"whatever", b"whatelse")).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n".encode()


def _altered(text: str) -> str:
    return dataclasses.replace(EnrolmentToken.from_text(text), secret="guessed").to_text()
