"""The SuperNode beside an agent: its start, and requests refused before it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge import federated_node
from edge.federated_node import NodeOptions, supernode_command, write_node_config
from shared import cli, federation
from shared.errors import FederationError, SettingsError
from shared.federation import Address

runner = CliRunner()


def options(folder: Path, **more: object) -> NodeOptions:
    return NodeOptions(Address("127.0.0.1", 7490), folder, folder / "normals of 'A' = \"B\"", **more)  # type: ignore[arg-type]


def test_the_node_config_survives_flower_s_own_parsing(tmp_path: Path) -> None:
    from flwr.common.config import parse_config_args

    (tmp_path / "buffer.key").write_text("ab" * 32)
    given = options(tmp_path, threads=2, buffer_key=tmp_path / "buffer.key")
    command = supernode_command(given, write_node_config(given), 9094)
    config = parse_config_args([command[command.index("--node-config") + 1]])
    assert config == {
        federation.NODE_BUFFER: str(given.buffer),
        federation.NODE_THREADS: 2,
        federation.NODE_BUFFER_KEY: str(given.buffer_key),
    }
    assert "--insecure" in command


def test_with_an_authority_the_node_speaks_tls(tmp_path: Path) -> None:
    for name in ("ca.pem", "key"):
        (tmp_path / name).touch()
    given = options(tmp_path, authority=tmp_path / "ca.pem", key=tmp_path / "key")
    command = supernode_command(given, tmp_path / "node.toml", 9094)
    assert "--insecure" not in command
    assert command[command.index("--root-certificates") + 1] == str(tmp_path / "ca.pem")
    assert command[command.index("--auth-supernode-private-key") + 1] == str(tmp_path / "key")


def test_unusable_settings_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="loopback only"):
        NodeOptions(Address("plant.example", 7490), tmp_path, tmp_path).check()
    with pytest.raises(SettingsError, match="no such file"):
        options(tmp_path, authority=tmp_path / "absent.pem").check()
    (tmp_path / "key").touch()
    with pytest.raises(SettingsError, match="needs TLS"):
        options(tmp_path, key=tmp_path / "key").check()


def test_a_node_that_keeps_failing_is_given_up_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [sys.executable, "-c", "print('Error: this cannot work'); raise SystemExit(5)"]
    monkeypatch.setattr(federated_node, "supernode_command", lambda *_: failing)
    monkeypatch.setattr(federated_node, "RETRY_WAIT_S", 0.01)
    monkeypatch.setattr(federated_node, "MAX_RETRIES", 2)
    lines: list[str] = []
    with pytest.raises(
        FederationError, match=r"failed 3 times .* exit code 5: Error: this cannot work .*supernode\.log"
    ):
        federated_node.run_node(options(tmp_path), say=lines.append)
    assert sum("Starting it again" in line for line in lines) == 2


def test_one_of_config_and_buffer_is_needed(tmp_path: Path) -> None:
    result = runner.invoke(cli.build().root, ["federated", "node"])
    assert isinstance(result.exception, SettingsError)
    result = runner.invoke(cli.build().root, ["federated", "node", "--buffer", "a", "--config", "b"])
    assert isinstance(result.exception, SettingsError)


def test_a_buffer_that_is_switched_off_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "edge.toml"
    config.write_text(f'state_dir = "{tmp_path}"\n[normal_buffer]\ncapacity = 0\n')
    result = runner.invoke(cli.build().root, ["federated", "node", "--config", str(config)])
    assert isinstance(result.exception, SettingsError)
    assert "capacity is 0" in str(result.exception)


def test_the_command_itself_never_loads_torch_or_flower() -> None:
    code = (
        "import sys, edge.federated_commands, edge.federated_node\n"
        "assert not {'torch', 'flwr'} & set(sys.modules), sorted(sys.modules)"
    )
    started_s = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert time.monotonic() - started_s < 20
