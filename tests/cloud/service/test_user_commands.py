"""`vedette cloud user`."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cloud.service.data_dir import prepare
from cloud.store import open_store
from cloud.store.account_links import LinkPurpose, find_link
from cloud.store.sessions import sessions_of
from shared import cli
from shared.errors import VedetteError
from tests.accounts import sign_in

PASSWORD = "correct horse battery"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    prepare(tmp_path / "data")
    path = tmp_path / "cloud.toml"
    path.write_text(
        f'data_dir = "{tmp_path}/data"\n[accounts]\npassword_memory_kib = 8\npassword_passes = 1\nlink_valid_s = 60\n'
    )
    return path


def run(config: Path, *words: str, typed: str = "") -> Result:
    command = ["cloud", "user", *words, "--config", str(config)]
    return CliRunner().invoke(cli.build("cloud").root, command, input=typed)


def link_of(config: Path, url: str):
    async def read():
        async with open_store(config.parent / "data") as store, store.reading() as connection:
            return await find_link(connection, url.strip().rpartition("/")[2])

    return asyncio.run(read())


def test_an_account_is_added_changed_and_disabled(config: Path, tmp_path: Path) -> None:
    added = run(config, "add", "Ada", "--role", "operator")
    assert added.stdout.startswith("http://127.0.0.1:7480/link/")
    assert (link_of(config, added.stdout).purpose, link_of(config, added.stdout).user_name) == ("password", "ada")
    assert run(config, "role", "ADA", "--role", "viewer", "--site", "hull").stdout == "ada: viewer\n"
    assert run(config, "list").stdout == "ada  viewer  enabled  sites hull  signed in never\n"
    assert link_of(config, added.stdout) is None, "a change of the role ends links"
    link = run(config, "link", "ada", "--sign-in", "--valid-s", "5").stdout
    assert link_of(config, link).purpose is LinkPurpose.SIGN_IN
    assert run(config, "disable", "ada").stdout == "ada: disabled\n"
    assert link_of(config, link) is None
    result = tmp_path / "users.json"
    run(config, "list", "--json", str(result))
    (user,) = json.loads(result.read_text())["users"]
    assert user["disabled_at_s"] > 0
    assert user["sites"] == ["hull"]
    assert run(config, "disable", "ada", "--undo").stdout == "ada: enabled\n"


def test_a_password_is_read_from_standard_input_and_ends_sessions(config: Path) -> None:
    assert run(config, "add", "ada", "--password-stdin", typed=f"{PASSWORD}\n").stdout == "ada: added\n"

    async def with_session() -> int:
        async with open_store(config.parent / "data") as store:
            await sign_in(store, name="ada")
            return len(await sessions_of(store, "ada"))

    assert asyncio.run(with_session()) == 1
    assert "has been set" in run(config, "password", "ada", "--password-stdin", typed=f"{PASSWORD}!").stdout
    assert asyncio.run(with_session()) == 1, "only the new one"
    assert run(config, "end-sessions", "ada").stdout == "ada: 1 sessions ended\n"


@pytest.mark.parametrize(
    ("words", "typed", "named"),
    [
        ("add a/b", "", "A name has letters"),
        ("add ada --password-stdin", "short\n", "12 to 256 characters"),
        ("add ada --site a/b", "", "site"),
        ("role bob --role admin", "", "No user 'bob'"),
        ("role bob --role admin --site a --all-sites", "", "Give one of them"),
        ("password bob", "", "No user 'bob'"),
        ("disable bob", "", "vedette cloud user list"),
        ("end-sessions bob", "", "No user 'bob'"),
        ("link bob", "", "No user 'bob'"),
    ],
)
def test_a_wrong_command_says_what_to_write(config: Path, tmp_path: Path, words: str, typed: str, named: str) -> None:
    result = tmp_path / "result.json"
    failed = run(config, *words.split(), "--json", str(result), typed=typed)
    assert isinstance(failed.exception, VedetteError)
    assert named in str(failed.exception)
    assert json.loads(result.read_text())["status"] == "failed"
