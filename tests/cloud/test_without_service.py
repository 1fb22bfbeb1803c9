"""Commands in a folder without a service make nothing there; only `cloud serve` creates a data directory."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from shared import cli
from shared.errors import VedetteError

NO_SERVICE = "no service here. Give --config"
COMMANDS = {
    "cloud migrate": NO_SERVICE,
    "cloud token press-07 --output tokens": NO_SERVICE,
    "cloud devices": NO_SERVICE,
    "cloud devices remove press-07": NO_SERVICE,
    "cloud notices": NO_SERVICE,
    "cloud notices test": "No such sink",
    "cloud audit": NO_SERVICE,
    "cloud compare press press-2-0badcafe": NO_SERVICE,
    "cloud compare list": NO_SERVICE,
    "cloud compare show 3": NO_SERVICE,
    "cloud compare cancel 3": NO_SERVICE,
    "cloud backup monday.tar": NO_SERVICE,
    "cloud restore monday.tar": "not a backup",
    "cloud doctor": NO_SERVICE,
    "cloud export --output export": NO_SERVICE,
    "cloud api-token --name CI --scopes labels:write": NO_SERVICE,
    "cloud publish press.vedette": NO_SERVICE,
    "cloud rollout press": NO_SERVICE,
    "cloud group set press-07 --group presses": NO_SERVICE,
    "cloud group release press --all": NO_SERVICE,
    "cloud group settings": NO_SERVICE,
    "cloud keys add --new press.pem": "signing.pem",  # needs a trusted key first
    "cloud keys retire h3k5mzq2v7ta": "signing.pem",
    "cloud keys list": NO_SERVICE,
    "cloud user add anna --role admin": NO_SERVICE,
    "cloud user list": NO_SERVICE,
    "cloud user role anna --role viewer": NO_SERVICE,
    "cloud user password anna": NO_SERVICE,
    "cloud user disable anna": NO_SERVICE,
    "cloud user end-sessions anna": NO_SERVICE,
    "cloud user link anna": NO_SERVICE,
    "federated server --listen 127.0.0.1:0": NO_SERVICE,
    "federated run --bundle-name press": NO_SERVICE,
    "federated status": NO_SERVICE,
    "federated node": "Give either --config",
}
MAKES_A_SERVICE = {"cloud serve"}


def paths_of(command: click.Command, words: str) -> Iterator[str]:
    """Yield the words of a command, or of every command below a group."""
    if not isinstance(command, click.Group):
        yield words
    else:
        for name, below in command.commands.items():
            yield from paths_of(below, f"{words} {name}")


def test_every_command_beside_a_service_is_tried_here() -> None:
    root = get_command(cli.build().root)
    assert isinstance(root, click.Group)
    paths = {path for group in ("cloud", "federated") for path in paths_of(root.commands[group], group)}
    untried = {
        path for path in paths - MAKES_A_SERVICE if not any(f"{tried} ".startswith(f"{path} ") for tried in COMMANDS)
    }
    assert not untried


@pytest.mark.parametrize(("words", "expected"), COMMANDS.items())
def test_a_command_without_a_service_makes_nothing(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, words: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.build().root, words.split())
    assert isinstance(result.exception, VedetteError), result.output
    assert expected in str(result.exception)
    assert list(tmp_path.iterdir()) == []
    assert not own_home.exists()
