"""Commands in a folder without a service make nothing there; only `cloud serve` creates a data directory."""

from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from shared import cli
from shared.errors import SettingsError

ARGUMENTS = {
    "cloud": {
        "migrate": [],
        "token": ["press-07", "--output", "tokens"],
        "devices": [],
        "publish": ["press.vedette"],
        "rollout": ["press"],
    },
    "federated": {
        "server": ["--listen", "127.0.0.1:0"],
        "run": ["--bundle-name", "press"],
        "status": [],
        "node": [],
    },
}
MAKES_A_SERVICE = {"serve"}
COMMANDS = [(group, name) for group, commands in ARGUMENTS.items() for name in commands]


def test_every_command_beside_a_service_is_tried_here() -> None:
    root = get_command(cli.build().root)
    for group, commands in ARGUMENTS.items():
        assert set(root.commands[group].commands) - MAKES_A_SERVICE == set(commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("group", "name"), COMMANDS)
def test_a_command_without_a_service_makes_nothing(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, group: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.build().root, [group, name, *ARGUMENTS[group][name]])
    assert isinstance(result.exception, SettingsError)
    assert ("Give either --config" if name == "node" else "no service here. Give --config") in str(result.exception)
    assert list(tmp_path.iterdir()) == []
    assert not own_home.exists()
