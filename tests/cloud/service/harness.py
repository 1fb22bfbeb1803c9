"""A whole service on free loopback ports, and devices with real keys and certificates."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloud.service.bundle_rules import Rules
from cloud.service.data_dir import prepare
from cloud.service.process import MakeConsole, Service
from cloud.service.roles import Role
from cloud.service.sample_check import SharedFields, check_fields, check_payloads
from cloud.service.tokens import new_tokens
from cloud.serving.analysis import Analysis
from cloud.settings import CloudSettings
from cloud.store.sqlite.store import DATABASE_FILE
from shared.enrolment import EnrolmentToken
from shared.modality import Modality
from shared.samples import Route, Sample, Screening, new_sample_id
from shared.wire import sample_to_message
from tests.cloud.console.filled_store import empty_database
from vedette.v1 import detection_pb2, detection_pb2_grpc, fleet_pb2, fleet_pb2_grpc, sample_pb2


class WaitingJudge:
    """An analysis that keeps its samples waiting until `end`, and then fails."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def judge(self, values: Sequence[object], crops: Sequence[object] = ()) -> list[object]:
        self._ended.wait(60)
        raise RuntimeError("enough")

    def end(self) -> None:
        self._ended.set()


def settings_for(folder: Path, **changes: object) -> CloudSettings:
    free = {"listen": "127.0.0.1:0", "enrolment_listen": "127.0.0.1:0", "console_listen": "127.0.0.1:0"}
    return CloudSettings.model_validate({"data_dir": folder / "data", **free, **changes})


def message(values: np.ndarray, *, bundle_id: str = "", modality: Modality = Modality.TABULAR, **changes: object):
    """One forwarded sample as a device sends it."""
    sample = Sample(new_sample_id(), "lab", modality, time.time(), "readings.csv:1", values)
    screening = Screening(3.5, 0.01, False, Route.FORWARD, bundle_id, "0123456789ab", "int8_openvino")
    result = sample_to_message(sample, screening)
    for name, value in changes.items():
        setattr(result, name, value)
    return result


def check_samples(messages: Sequence[sample_pb2.Sample], rules: Rules) -> dict[int, str]:
    """The reason of each rejected sample, by place."""
    return check_payloads(check_fields(messages, rules, SharedFields()))


@dataclass
class DeviceClient:
    """Credentials of an enrolled device, and its calls."""

    device_id: str
    address: str
    key_pem: bytes
    certificate_pem: bytes
    ca_pem: bytes
    key_set: fleet_pb2.KeySet = field(default_factory=fleet_pb2.KeySet)
    bundle_id: str = ""
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    def channel(self) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(self.ca_pem, self.key_pem, self.certificate_pem)
        self._channels.append(grpc.aio.secure_channel(self.address, credentials))
        return self._channels[-1]

    @property
    def detection(self) -> detection_pb2_grpc.DetectionStub:
        return detection_pb2_grpc.DetectionStub(self.channel())

    @property
    def fleet(self) -> fleet_pb2_grpc.FleetStub:
        return fleet_pb2_grpc.FleetStub(self.channel())

    async def submit(self, messages: Sequence[sample_pb2.Sample]) -> list[detection_pb2.SampleResult]:
        """Submit samples; those that name no bundle get the device's."""
        for sample in messages:
            sample.screening.bundle_id = sample.screening.bundle_id or self.bundle_id
        answer = await self.detection.Submit(detection_pb2.SubmitRequest(samples=messages), timeout=20)
        return list(answer.results)

    async def events(self, count: int, cursor: int = 0, timeout_s: float = 20) -> list[detection_pb2.Event]:
        """The next events, as many as wanted; fewer when the time is over."""
        found: list[detection_pb2.Event] = []
        call = self.detection.Watch(detection_pb2.WatchRequest(cursor=cursor))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                async for event in call:
                    found.append(event)
                    if len(found) == count:
                        break
        call.cancel()
        return found

    async def verdicts(self, count: int, timeout_s: float = 20) -> dict[bytes, sample_pb2.Verdict]:
        """By sample id, the first verdicts among the device's events."""
        found: dict[bytes, sample_pb2.Verdict] = {}
        call = self.detection.Watch(detection_pb2.WatchRequest())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                async for event in call:
                    if event.WhichOneof("event") == "verdict":
                        assert event.verdict.sample_id not in found, "one verdict a sample"
                        found[event.verdict.sample_id] = event.verdict
                    if len(found) == count:
                        break
        call.cancel()
        return found

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


def signing_request(key: ec.EllipticCurvePrivateKey, name: str = "whatever") -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


async def enrol(token_text: str) -> DeviceClient:
    """Spend a token, as a device does."""
    token = EnrolmentToken.from_text(token_text)
    key = ec.generate_private_key(ec.SECP256R1())
    credentials = grpc.ssl_channel_credentials(token.ca_certificate_pem.encode())
    async with grpc.aio.secure_channel(token.enrolment_address, credentials) as channel:
        request = fleet_pb2.EnrollRequest(token=token.secret, certificate_signing_request=signing_request(key))
        answer = await fleet_pb2_grpc.FleetStub(channel).Enroll(request, timeout=20)
    return DeviceClient(
        answer.device_id,
        token.address,
        key_pem(key),
        answer.certificate_pem,
        answer.ca_certificate_pem,
        answer.key_set,
    )


@dataclass
class Running:
    """A service in this process."""

    service: Service
    settings: CloudSettings
    devices: list[DeviceClient] = field(default_factory=list)

    async def token(self, device_id: str, valid_s: float = 60) -> str:
        addresses = self.service.addresses  # the file of a service with several processes names none
        changes = {
            "advertised_address": self.settings.advertised_address or addresses.address,
            "advertised_enrolment_address": (self.settings.advertised_enrolment_address or addresses.enrolment_address),
        }
        settings = self.settings.model_copy(update=changes)
        return (await new_tokens(settings, {device_id: f"secret-{new_sample_id()}"}, valid_s))[device_id]

    async def device(self, device_id: str = "press-07") -> DeviceClient:
        self.devices.append(await enrol(await self.token(device_id)))
        current = await self.service.registry.all_current()
        self.devices[-1].bundle_id = current[0].bundle_id if current else ""
        return self.devices[-1]


@contextlib.asynccontextmanager
async def running(
    settings: CloudSettings,
    key,
    load_analysis: Callable = Analysis.load,
    make_console: MakeConsole | None = None,
    role: Role = Role.ALL,
) -> AsyncIterator[Running]:
    file = settings.data_dir / DATABASE_FILE
    if not settings.store_url and not file.exists():  # copied, not made by every migration from the first on
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        file.write_bytes(empty_database())
    authority = prepare(settings.store)
    public_key = key.public_key()
    service = Service(
        settings, authority, public_key, load_analysis=load_analysis, make_console=make_console, role=role
    )
    result = Running(service, settings)
    try:
        await service.start()
        yield result
    finally:
        for device in result.devices:
            await device.close()
        await service.stop()
