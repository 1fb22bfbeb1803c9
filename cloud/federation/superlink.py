"""Flower's SuperLink as a supervised child process; runs reach the devices through it."""

import http.client
import json
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared import federation
from shared.addresses import Address
from shared.errors import FederationError, SettingsError
from shared.files import write_durably
from shared.supervision import SupervisedProcess, stoppable, supervised

START_TIMEOUT_S = 90.0
HEALTH_TIMEOUT_S = 2.0
POLL_S = 0.2
_SERVER_FILE = "server.json"


@dataclass(frozen=True)
class ServerCertificates:
    """PEM files of the SuperLink: certificate, key, and the authority that signed it."""

    certificate: Path
    key: Path
    authority: Path

    @classmethod
    def of(cls, certificate: Path | None, key: Path | None, authority: Path | None) -> "ServerCertificates | None":
        """Return all three, or None if none is given; raises SettingsError for one or two, or a missing file."""
        given = [path for path in (certificate, key, authority) if path is not None]
        if not given:
            return None
        if certificate is None or key is None or authority is None:
            raise SettingsError("TLS needs --certificate, --key and --ca: give all three or none.")
        for path in given:
            if not path.is_file():
                raise SettingsError(f"{path}: no such file. Give the certificate's path in PEM.")
        return cls(certificate.resolve(), key.resolve(), authority.resolve())


@dataclass(frozen=True)
class ServerState:
    """Address of a running SuperLink, stored in its state folder for the other commands."""

    address: Address
    authority: Path | None
    pid: int

    def write(self, state_dir: Path) -> None:
        """Write the state for the other commands."""
        values = {"address": str(self.address), "ca": str(self.authority or ""), "pid": self.pid}
        write_durably(state_dir / _SERVER_FILE, json.dumps(values).encode())

    @classmethod
    def read(cls, state_dir: Path) -> "ServerState | None":
        """Return the state of the running SuperLink; None if there is none or it ended in order."""
        try:
            values = json.loads((state_dir / _SERVER_FILE).read_text(encoding="utf-8"))
            authority = Path(values["ca"]) if values["ca"] else None
            return cls(Address.parse(values["address"]), authority, int(values["pid"]))
        except (FileNotFoundError, ValueError, KeyError):
            return None

    @staticmethod
    def forget(state_dir: Path) -> None:
        """Remove the state: no SuperLink runs."""
        (state_dir / _SERVER_FILE).unlink(missing_ok=True)


def is_healthy(address: Address, authority: Path | None) -> bool:
    """Return whether a SuperLink answers at `address`, over TLS if an `authority` is given."""
    connection: http.client.HTTPConnection
    try:
        if authority is None:
            connection = http.client.HTTPConnection(address.host, address.port, timeout=HEALTH_TIMEOUT_S)
        else:
            context = ssl.create_default_context(cafile=str(authority))
            connection = http.client.HTTPSConnection(
                address.host, address.port, timeout=HEALTH_TIMEOUT_S, context=context
            )
        connection.request("GET", "/health")
        healthy = connection.getresponse().status == 200
        connection.close()
    except (OSError, http.client.HTTPException):
        return False
    return healthy


def superlink_command(
    address: Address, certificates: ServerCertificates | None, *, known_nodes_only: bool
) -> list[str]:
    """Return the command line of a SuperLink with state in the working directory that installs nothing."""
    command = [federation.flower_command("flower-superlink"), "--disable-runtime-dependency-installation"]
    command += ["--host", address.host, "--port", str(address.port), "--database", "superlink.db"]
    if certificates is None:
        command.append("--insecure")
    else:
        command += ["--ssl-certfile", str(certificates.certificate), "--ssl-keyfile", str(certificates.key)]
        command += ["--ssl-ca-certfile", str(certificates.authority)]
    if known_nodes_only:
        command.append("--enable-supernode-auth")
    return command


def serve(
    state_dir: Path,
    address: Address,
    certificates: ServerCertificates | None,
    *,
    known_nodes_only: bool,
    report: Callable[[str], None],
) -> None:
    """Run a SuperLink until a signal ends this process.

    Raises PortInUseError if `address` is in use, SettingsError for plain HTTP beyond loopback, FederationError if the
    SuperLink does not start or ends unexpectedly.
    """
    federation.require_secure(address, certificates.certificate if certificates else None)
    if known_nodes_only and certificates is None:
        raise SettingsError("--known-nodes-only needs TLS: give --certificate, --key and --ca.")
    authority = certificates.authority if certificates else None
    address = federation.take_port(address)
    ServerState.forget(state_dir)
    with stoppable():
        try:
            with supervised(
                superlink_command(address, certificates, known_nodes_only=known_nodes_only),
                log=state_dir / "superlink.log",
                environment=federation.flower_environment(state_dir / "flower"),
                folder=state_dir,
            ) as child:
                _wait_until_healthy(child, address.from_here, authority)
                ServerState(address.from_here, authority, os.getpid()).write(state_dir)
                report(f"Ready: federated rounds at {address} (log: {child.log}).")
                while (code := child.exit_code()) is None:
                    time.sleep(POLL_S)
                raise FederationError(
                    f"The SuperLink ended with exit code {code}: {child.last_error()} (see {child.log})."
                )
        except KeyboardInterrupt:
            report("Stopping.")
        finally:
            ServerState.forget(state_dir)


def _wait_until_healthy(child: SupervisedProcess, address: Address, authority: Path | None) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not is_healthy(address, authority):
        if (code := child.exit_code()) is not None:
            raise FederationError(
                f"The SuperLink did not start (exit code {code}): {child.last_error()} (see {child.log})."
            )
        if time.monotonic() > deadline_s:
            raise FederationError(
                f"The SuperLink did not answer at {address} in {START_TIMEOUT_S:.0f} s: see {child.log}."
            )
        time.sleep(POLL_S)
