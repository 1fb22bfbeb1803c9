"""Service for a benchmark in a folder of its own, with enrolled devices."""

import asyncio
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from cloud.service.authority import Authority
from cloud.service.data_dir import SERVICE_FILE, prepare
from cloud.settings import CloudSettings
from cloud.store import Store, open_store
from cloud.store.fleet import add_tokens, spend_token
from cloud.store.registry import Registry
from shared.bundle import Bundle
from shared.errors import VedetteError
from shared.signing_keys import public_pem
from shared.supervision import SupervisedProcess, interrupts_deferred
from shared.wire import MAX_MESSAGE_BYTES

START_TIMEOUT_S = 60.0
POLL_S = 0.05
_CHANNEL = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", MAX_MESSAGE_BYTES))


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """Key and certificate of a device, and the certificate of the authority, all as PEM."""

    device_id: str
    key_pem: bytes
    certificate_pem: bytes
    ca_pem: bytes

    def channel(self, address: str) -> grpc.aio.Channel:
        """Return a connection of this device with mutual TLS."""
        credentials = grpc.ssl_channel_credentials(self.ca_pem, self.key_pem, self.certificate_pem)
        return grpc.aio.secure_channel(address, credentials, options=_CHANNEL)


@dataclass(frozen=True, slots=True)
class Peer:
    """Process that serves devices."""

    address: str
    pid: int


class Setup:
    """Settings, store and processes of one benchmark below `folder`; call `stop` at the end."""

    def __init__(self, folder: Path, key: Ed25519PrivateKey, changes: dict[str, Any]) -> None:
        self._folder, self._key = folder, key
        self._children: list[SupervisedProcess] = []
        key_path = folder / "bundle_key.pem"
        key_path.write_bytes(public_pem(key.public_key()))
        free = dict.fromkeys(("listen", "enrolment_listen", "console_listen"), "127.0.0.1:0")
        values = {"data_dir": folder / "data", "bundle_key": key_path, **free, **changes}
        self.settings = CloudSettings.model_validate(values)
        self.config = folder / "cloud.toml"
        self.config.write_text(self.settings.as_text(), encoding="utf-8")

    async def prepare(self, bundles: Sequence[Bundle], devices: int) -> list[SimulatedDevice]:
        """Publish the bundles and enrol devices; return the devices."""
        authority = await asyncio.to_thread(prepare, self.settings.store)
        async with open_store(self.settings.store) as store:
            registry = Registry(store, self.settings.store, self._key.public_key())
            for bundle in bundles:
                await registry.publish(bundle)
            return await _enrol(store, authority, [f"device-{place:04}" for place in range(devices)])

    async def start(self, module: str, address: Callable[["Setup", SupervisedProcess], str]) -> Peer:
        """Start `python -m MODULE CONFIG`; return it once `address` gives its address.

        Raises VedetteError if the process ends or does not start in time.
        """
        command = [sys.executable, "-m", module, str(self.config)]
        return await self._started(self.launch(module.rpartition(".")[2], command), address)

    async def serve(self) -> Peer:
        """Start `vedette cloud serve`; return it once it is ready and has loaded a current bundle."""
        vedette = str(Path(sys.executable).with_name("vedette"))
        child = self.launch("service", [vedette, "cloud", "serve", "--config", str(self.config)])
        return await self._started(child, _address_with_bundle)

    def launch(self, name: str, command: Sequence[str]) -> SupervisedProcess:
        """Start a process that `stop` ends; its output goes to NAME.log in the folder."""
        log = self._folder / f"{name}.log"
        with interrupts_deferred():
            child = SupervisedProcess(command, log=log, environment=_environment(), folder=self._folder)
            self._children.append(child)
        return child

    async def _started(self, child: SupervisedProcess, address: Callable[["Setup", SupervisedProcess], str]) -> Peer:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not (found := address(self, child)):
            if child.exit_code() is not None or time.monotonic() > deadline_s:
                raise VedetteError(f"{child.log.stem} did not start: {child.last_error()}.")
            await asyncio.sleep(POLL_S)
        return Peer(found, child.pid)

    def stop(self) -> None:
        """End all processes."""
        for child in self._children:
            child.request_stop()
        for child in self._children:
            child.stop()


def service_address(setup: Setup, child: SupervisedProcess) -> str:
    """Return the device port of the service once it is ready, or an empty text."""
    try:
        facts = json.loads((setup.settings.data_dir / SERVICE_FILE).read_bytes())
    except (FileNotFoundError, ValueError):
        return ""
    return str(facts["address"]) if facts["pid"] == child.pid else ""


def _address_with_bundle(setup: Setup, child: SupervisedProcess) -> str:
    return service_address(setup, child) if "bundle_ready" in child.output() else ""


def printed_address(_: Setup, child: SupervisedProcess) -> str:
    """Return the address that a process has printed as its last line, or an empty text."""
    line = child.output().rpartition("\n")[0].rpartition("\n")[2]
    return line if line.startswith("127.0.0.1:") else ""


async def _enrol(store: Store, authority: Authority, device_ids: Sequence[str]) -> list[SimulatedDevice]:
    """Return an identity for each device, enrolled as by its token."""
    now_s = time.time()
    secret_of = {device_id: secrets.token_urlsafe(16) for device_id in device_ids}
    await add_tokens(store, {secret: device_id for device_id, secret in secret_of.items()}, now_s + 3600)
    identities = []
    async with store.writing() as connection:
        for device_id, secret in secret_of.items():
            key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
            request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
            signed = authority.sign_device(request.public_bytes(serialization.Encoding.PEM), device_id)
            await spend_token(connection, secret, signed.serial, signed.expires_at_s, now_s)
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            identities.append(SimulatedDevice(device_id, pem, signed.pem, authority.certificate_pem))
    return identities


def _environment() -> dict[str, str]:
    """Return the environment of a child: this one, with the path of this process's modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
