"""`vedette cloud api-token` and `vedette cloud audit`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cloud.service.data_dir import prepare
from cloud.store.audit import local_actor
from shared import cli
from shared.errors import SettingsError, VedetteError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    prepare(tmp_path / "data")
    path = tmp_path / "cloud.toml"
    path.write_text(f'data_dir = "{tmp_path}/data"\n')
    return path


def run(config: Path, *words: str) -> Result:
    return CliRunner().invoke(cli.build("cloud").root, ["cloud", *words, "--config", str(config)])


def test_a_token_is_made_listed_and_revoked_and_the_log_names_who_did_it(config: Path, tmp_path: Path) -> None:
    made = run(config, "api-token", "--name", "CI", "--scopes", "labels:write, verdicts:read", "--days", "2")
    prefix, token_id, secret = made.stdout.strip().split("_", 2)
    assert (prefix, len(token_id)) == ("vedette", 12)
    assert len(secret) >= 43
    (line,) = run(config, "api-token", "--list").stdout.splitlines()
    assert line.startswith(f"{token_id}  CI  valid  verdicts:read,labels:write  expires ")
    assert secret not in line
    result = tmp_path / "tokens.json"
    assert "  revoked  " in run(config, "api-token", "--revoke", token_id, "--json", str(result)).stdout
    (token,) = json.loads(result.read_text())["tokens"]
    assert token["token_id"] == token_id
    assert token["revoked_at_s"] > token["created_at_s"]
    revoked, added = run(config, "audit").stdout.splitlines()
    assert f"api_token.revoked  {token_id}  by {local_actor()}" in revoked
    assert f"api_token.made  {token_id}  by {local_actor()}" in added
    run(config, "audit", "--action", "api_token.made", "--json", str(result))
    (entry,) = json.loads(result.read_text())["entries"]
    assert entry["details"]["scopes"] == ["verdicts:read", "labels:write"]
    assert run(config, "audit", "--to", "2020-01-01").stdout == ""
    assert len(run(config, "audit", "--from", "2020-01-01T01:00:00+01:00", "--limit", "1").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("api-token", "Give one of them"),
        ("api-token --list --revoke abc", "Give one of them"),
        ("api-token --name CI", "belong together"),
        ("api-token --name CI --scopes everything", "'everything' is not a scope. Use some of verdicts:read"),
        ("api-token --name CI --scopes ,", "no scope is given"),
        ("api-token --revoke abc", "No API token 'abc'"),
        ("audit --action device.gone", "token.made, token.deleted, device.enrolled"),
        ("audit --from yesterday", "'yesterday' is not a time"),
    ],
)
def test_a_wrong_command_says_what_to_write(config: Path, tmp_path: Path, words: str, named: str) -> None:
    result = tmp_path / "result.json"
    failed = run(config, *words.split(), "--json", str(result))
    assert isinstance(failed.exception, VedetteError)
    assert named in str(failed.exception)
    assert json.loads(result.read_text())["exit_code"] in (SettingsError.exit_code, 4)
