"""Checks before the start of a SuperLink, and errors of a failed start."""

import http.server
import socket
import sys
import threading
from pathlib import Path

import pytest

from cloud.federation import superlink
from cloud.federation.superlink import ServerCertificates, ServerState, serve, superlink_command
from shared.errors import FederationError, PortInUseError, SettingsError
from shared.federation import Address


def serve_at(folder: Path, address: Address, known_nodes_only: bool = False) -> list[str]:
    lines: list[str] = []
    serve(folder, address, None, known_nodes_only=known_nodes_only, report=lines.append)
    return lines


def test_a_port_in_use_is_reported_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PortInUseError):
            serve_at(tmp_path / "state", Address("127.0.0.1", taken.getsockname()[1]))
    assert not (tmp_path / "state" / "superlink.log").exists()


def test_plain_http_beyond_loopback_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="loopback only"):
        serve_at(tmp_path, Address("0.0.0.0", 0))
    with pytest.raises(SettingsError, match="needs TLS"):
        serve_at(tmp_path, Address("127.0.0.1", 0), known_nodes_only=True)


def test_certificates_come_as_a_set(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("server.pem", "key.pem", "ca.pem")]
    assert ServerCertificates.of(None, None, None) is None
    with pytest.raises(SettingsError, match="TLS needs"):
        ServerCertificates.of(paths[0], None, paths[2])
    with pytest.raises(SettingsError, match="no such file"):
        ServerCertificates.of(*paths)
    for path in paths:
        path.touch()
    certificates = ServerCertificates.of(*paths)
    command = superlink_command(Address("0.0.0.0", 7490), certificates, known_nodes_only=True)
    assert "--insecure" not in command
    assert "--enable-supernode-auth" in command
    assert "--disable-runtime-dependency-installation" in command
    assert command[command.index("--ssl-keyfile") + 1] == str(paths[1])


def test_a_superlink_that_does_not_start_is_one_line_with_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [sys.executable, "-c", "print('Error: the database is damaged'); raise SystemExit(6)"]
    monkeypatch.setattr(superlink, "superlink_command", lambda *_, **__: failing)
    with pytest.raises(
        FederationError, match=r"exit code 6\): Error: the database is damaged \(see .*superlink\.log\)"
    ):
        serve_at(tmp_path, Address("127.0.0.1", 0))
    assert ServerState.read(tmp_path) is None


@pytest.mark.parametrize("authority", [None, Path("/etc/ca.pem")])
def test_the_server_s_state_is_read_as_written(tmp_path: Path, authority: Path | None) -> None:
    state = ServerState(Address("127.0.0.1", 7490), authority, 77)
    state.write(tmp_path)
    assert ServerState.read(tmp_path) == state
    ServerState.forget(tmp_path)
    assert ServerState.read(tmp_path) is None
    (tmp_path / "server.json").write_text("{")
    assert ServerState.read(tmp_path) is None


def test_health_is_the_answer_of_the_server() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = Address("127.0.0.1", server.server_port)
        assert superlink.is_healthy(address, None)
        server.shutdown()
    assert not superlink.is_healthy(address, None)
