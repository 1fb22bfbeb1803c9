"""Notifications of an agent to systemd."""

import socket
from pathlib import Path

import pytest

from tests.edge.device import Device


def test_a_service_manager_hears_when_it_is_ready_alive_and_stopping(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        device.start()
        heard = [manager.recv(100)]
        while heard.count(b"WATCHDOG=1") < 3:
            heard.append(manager.recv(100))
        assert b"READY=1" in heard
        device.terminate()
        while b"STOPPING=1" not in heard:
            heard.append(manager.recv(100))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "absent"))
    assert device.run("--until-done") == 0
