"""The service is not ready while a current bundle does not verify, and names it."""

import asyncio
import json
import urllib.error
import urllib.request

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud.service import readiness, store_check
from cloud.service.data_dir import prepare
from cloud.store.registry import publish_to
from tests.cloud.service.harness import message, running, settings_for
from vedette.v1 import sample_pb2

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for module in (readiness, store_check):
        monkeypatch.setattr(module, "CHECK_EVERY_S", 0.05)
    monkeypatch.setattr(store_check, "CHECK_AGAIN_S", 0.0)


async def page(cloud, path: str) -> tuple[int, dict]:
    def read() -> tuple[int, dict]:
        try:
            with urllib.request.urlopen(cloud.service.addresses.console_url + path, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return await asyncio.to_thread(read)


async def is_ready(cloud, wanted: bool) -> list[dict]:
    """Wait until the service is ready, or is not; return the bundles that /ready names."""
    async with asyncio.timeout(20):
        while (answer := await page(cloud, "ready"))[0] != (200 if wanted else 503):
            await asyncio.sleep(0.05)
    assert answer[1]["status"] == ("ready" if wanted else "not ready")
    code, health = await page(cloud, "health")
    assert (code, health["status"]) == (200, answer[1]["status"])
    return answer[1]["bundles"]


async def overall_health(device) -> tuple[int, int]:
    stub = health_pb2_grpc.HealthStub(device.channel())
    names = ("", "vedette.v1.Detection")
    overall, detection = [await stub.Check(health_pb2.HealthCheckRequest(service=name)) for name in names]
    return overall.status, detection.status


async def test_a_current_bundle_that_is_lost_or_damaged_makes_the_service_not_ready(cloud, device, biopsies, caplog):
    bundle_id = biopsies.bundle.manifest.bundle_id
    assert await is_ready(cloud, True) == []
    assert await overall_health(device) == (SERVING, SERVING)
    folder = cloud.settings.data_dir / "bundles"
    whole, edge = folder / f"{bundle_id}.vedette", folder / f"{bundle_id}.edge.vedette"
    for path, words in ((whole, "missing"), (edge, "damaged")):
        data = path.read_bytes()
        if words == "missing":
            path.unlink()
        else:
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        (found,) = await is_ready(cloud, False)
        assert found["bundle_id"] == bundle_id
        assert words in found["reason"]
        assert str(folder) not in json.dumps(found)
        assert await overall_health(device) == (NOT_SERVING, SERVING)
        path.write_bytes(data)
        assert await is_ready(cloud, True) == []
        assert await overall_health(device) == (SERVING, SERVING)
    events = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert events == ["current_bundle_does_not_verify", "not_ready"] * 2  # each fault once, not at every check


async def submitted(device, sent) -> grpc.StatusCode:
    try:
        await device.submit([sent])
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_a_deleted_store_is_not_ready_and_acknowledges_nothing(cloud, device, biopsies):
    assert await submitted(device, message(biopsies.normal[0])) is grpc.StatusCode.OK
    path = cloud.settings.data_dir / "vedette.sqlite"
    path.rename(path.with_suffix(".gone"))  # from here on, nothing is written into the file that has no name
    assert await submitted(device, message(biopsies.normal[1])) is grpc.StatusCode.UNAVAILABLE
    await is_ready(cloud, False)
    reason = (await page(cloud, "ready"))[1]["store"]
    assert "removed or replaced" in reason
    assert str(path) not in reason
    assert await overall_health(device) == (NOT_SERVING, NOT_SERVING)
    assert await submitted(device, message(biopsies.normal[2])) is grpc.StatusCode.UNAVAILABLE
    path.with_suffix(".gone").rename(path)
    await is_ready(cloud, True)
    assert await submitted(device, message(biopsies.normal[3])) is grpc.StatusCode.OK
    assert await overall_health(device) == (SERVING, SERVING)


async def test_a_store_that_refuses_samples_is_not_ready(cloud, device, biopsies):
    async with cloud.service.store.writing() as connection:
        await connection.exec_driver_sql(
            "CREATE TRIGGER damaged BEFORE INSERT ON samples BEGIN SELECT RAISE(FAIL, 'malformed'); END"
        )
    await is_ready(cloud, False)
    assert (await page(cloud, "ready"))[1]["store"] == "the store cannot be written: malformed"
    assert await submitted(device, message(biopsies.normal[0])) is grpc.StatusCode.UNAVAILABLE
    async with cloud.service.store.writing() as connection:
        await connection.exec_driver_sql("DROP TRIGGER damaged")
    assert await submitted(device, message(biopsies.normal[0])) is grpc.StatusCode.OK
    await is_ready(cloud, True)


async def test_a_bundle_of_another_key_is_named_from_the_start_and_its_samples_are_undecided(tmp_path, biopsies):
    settings = settings_for(tmp_path)
    prepare(settings.data_dir)
    entry = await publish_to(settings.data_dir, biopsies.bundle, biopsies.key.public_key())
    async with running(settings, Ed25519PrivateKey.generate()) as cloud:
        (found,) = await is_ready(cloud, False)
        assert (found["bundle_id"], found["reason"].split(":")[0]) == (entry.bundle_id, "no trusted key signed it")
        device = await cloud.device()
        sent = message(biopsies.anomalous[0], bundle_id=entry.bundle_id)
        await device.submit([sent])
        verdict = (await device.verdicts(1))[sent.sample_id]
    assert verdict.decision == sample_pb2.DECISION_UNDECIDED
    assert "no trusted key signed it" in verdict.reason
    assert str(tmp_path) not in verdict.reason
