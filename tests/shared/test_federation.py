"""Addresses, and the environment Flower's commands get."""

import os
import socket
import sys
from pathlib import Path

import pytest

from shared import federation
from shared.addresses import Address
from shared.errors import MissingExtraError, PortInUseError, SettingsError


@pytest.mark.parametrize(
    ("text", "loopback"),
    [("127.0.0.1:7490", True), ("[::1]:1", True), ("localhost:80", True), ("0.0.0.0:80", False), ("plant:80", False)],
)
def test_addresses_are_read_and_written_alike(text: str, loopback: bool) -> None:
    address = Address.parse(text)
    assert str(address) == text
    assert address.is_loopback is loopback


@pytest.mark.parametrize("text", ["", "7490", "host", "host:", ":80", "host:70000", "host:-1", "host:x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="write host:port"):
        federation.parse_address(text)


def test_plain_http_is_for_loopback_only(tmp_path: Path) -> None:
    federation.require_secure(Address("127.0.0.1", 1), None)
    federation.require_secure(Address("0.0.0.0", 1), tmp_path / "ca.pem")
    with pytest.raises(SettingsError, match="unencrypted on loopback only"):
        federation.require_secure(Address("0.0.0.0", 1), None)


def test_a_port_in_use_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PortInUseError, match="choose another port"):
            federation.take_port(Address("127.0.0.1", taken.getsockname()[1]))
    assert federation.take_port(Address("127.0.0.1", 0)).port > 0


def test_flower_gets_no_telemetry_and_a_home_of_its_own(tmp_path: Path) -> None:
    environment = federation.flower_environment(tmp_path, {"PATH": "/usr/bin", "FLWR_TELEMETRY_ENABLED": "1"})
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert environment["FLWR_HOME"] == str(tmp_path)
    assert environment["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/usr/bin"]


def test_a_missing_flower_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"vedette\[federated\]"):
        federation.flower_command("flower-that-is-not-there")


@pytest.mark.parametrize(
    ("listened", "reached"), [("0.0.0.0", "localhost"), ("::", "localhost"), ("10.0.0.7", "10.0.0.7")]
)
def test_a_wildcard_is_reached_at_localhost(listened: str, reached: str) -> None:
    assert Address(listened, 7490).from_here == Address(reached, 7490)
