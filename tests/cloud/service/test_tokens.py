"""`vedette cloud token`: many tokens at once, their files, and the list of open ones."""

import stat
import time

import pytest
from typer.testing import CliRunner

from cloud.service.data_dir import prepare
from cloud.service.tokens import new_tokens, read_device_ids
from cloud.settings import CloudSettings
from cloud.store import open_store
from cloud.store.fleet import device_of_token, open_tokens, spend_token
from shared.cli import build
from shared.enrolment import EnrolmentToken
from shared.errors import EnrolmentError, FileNotWrittenError, SettingsError


@pytest.fixture
def settings(tmp_path):
    made = CloudSettings(data_dir=tmp_path / "data", listen="127.0.0.1:7443", enrolment_listen="127.0.0.1:7444")
    prepare(made.data_dir)
    return made


@pytest.fixture
def token(tmp_path, settings):
    """Call `vedette cloud token` in this process with the settings of the service."""
    config = tmp_path / "cloud.toml"
    config.write_text(
        f'data_dir = "{settings.data_dir}"\nlisten = "{settings.listen}"\n'
        f'enrolment_listen = "{settings.enrolment_listen}"\n'
    )
    tree = build("cloud").root

    def call(*arguments):
        words = ["cloud", "token", *(str(each) for each in arguments), "--config", str(config)]
        return CliRunner().invoke(tree, words)

    return call


async def stored(settings):
    async with open_store(settings.data_dir) as store:
        return [each.device_id for each in await open_tokens(store, time.time())]


def test_ids_are_read_without_blank_lines_and_comments(tmp_path):
    path = tmp_path / "devices.txt"
    path.write_bytes(b"\xef\xbb\xbf# hall 2\r\npress-01\r\n\r\n  press-02  \r\n#press-03\n")
    assert read_device_ids(path) == ["press-01", "press-02"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"press-01\n../x\n", "line 2: '../x' is not a device id"),
        (b"press-01\n\npress-01\n", "line 3: 'press-01' is in line 1 already"),
        (b"a b\n", "line 1"),
        (b"# none\n\n", "no device id"),
        (b"", "no device id"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_wrong_file_names_its_line(tmp_path, content, expected):
    path = tmp_path / "devices.txt"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"devices\.txt") as refused:
        read_device_ids(path)
    assert expected in str(refused.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(SettingsError, match="cannot be read"):
            read_device_ids(path)


def test_many_tokens_are_files_that_only_their_owner_reads(tmp_path, settings, token):
    listed, output = tmp_path / "devices.txt", tmp_path / "tokens"
    ids = [f"press-{number:02}" for number in range(30)]
    listed.write_text("\n".join(ids))
    done = token("--many", listed, "--output", output)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [f"{each}  {output / each}.token" for each in ids]
    secrets = set()
    for each in ids:
        path = output / f"{each}.token"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        made = EnrolmentToken.from_text(path.read_text())
        assert (made.device_id, made.address) == (each, settings.listen)
        secrets.add(made.secret)
    assert len(secrets) == len(ids)
    assert not [secret for secret in secrets if secret in done.output]


def test_without_a_folder_each_line_is_a_device_and_its_token(tmp_path, token):
    (tmp_path / "devices.txt").write_text("press-01\npress-02\n")
    lines = token("--many", tmp_path / "devices.txt").stdout.splitlines()
    found = [line.split() for line in lines]
    assert [(each, EnrolmentToken.from_text(text).device_id) for each, text in found] == [
        ("press-01", "press-01"),
        ("press-02", "press-02"),
    ]


async def test_every_token_can_be_spent_once(settings):
    made = await new_tokens(settings, {"a": "secret-a", "b": "secret-b"}, 60)
    async with open_store(settings.data_dir) as store, store.writing() as connection:
        for device_id, text in made.items():
            secret = EnrolmentToken.from_text(text).secret
            assert await device_of_token(connection, secret, time.time()) == device_id
            await spend_token(connection, secret, f"serial-{device_id}", time.time() + 60, time.time())
            with pytest.raises(EnrolmentError, match="spent"):
                await device_of_token(connection, secret, time.time())
    assert await stored(settings) == []


async def test_one_wrong_name_or_one_old_file_makes_no_token(tmp_path, settings):
    output = tmp_path / "tokens"
    with pytest.raises(SettingsError, match="not a device id"):
        await new_tokens(settings, {"a": "1", "../b": "2"}, 60, output=output)
    assert not output.exists()
    output.mkdir()
    (output / "b.token").write_text("old")
    with pytest.raises(SettingsError, match=r"b\.token exists already"):
        await new_tokens(settings, {"a": "1", "b": "2"}, 60, output=output)
    assert [(path.name, path.read_text()) for path in output.iterdir()] == [("b.token", "old")]
    assert await stored(settings) == []


async def test_a_folder_that_cannot_be_written_makes_no_token(tmp_path, settings):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="not a folder"):
        await new_tokens(settings, {"a": "1"}, 60, output=tmp_path / "file")
    with pytest.raises(FileNotWrittenError):
        await new_tokens(settings, {"a": "1"}, 60, output=tmp_path / "file" / "below")
    assert await stored(settings) == []


async def test_files_are_removed_when_the_store_refuses_the_tokens(tmp_path, settings):
    await new_tokens(settings, {"a": "same"}, 60)
    with pytest.raises(Exception, match="UNIQUE"):  # a secret can be stored once
        await new_tokens(settings, {"b": "other", "c": "same"}, 60, output=tmp_path / "tokens")
    assert list((tmp_path / "tokens").iterdir()) == []
    assert await stored(settings) == ["a"]


def test_the_list_shows_open_tokens_without_secrets(settings, token):
    text = token("press-02").stdout.strip()
    token("press-01", "--valid-s", "3600")
    done = token("--list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["press-01", "press-02"]
    assert all("expires 20" in line for line in done.stdout.splitlines())
    assert EnrolmentToken.from_text(text).secret not in done.stdout


@pytest.mark.parametrize(
    "arguments", [(), ("press-01", "--list"), ("press-01", "--many", "x"), ("--list", "--valid-s", "5")]
)
def test_contradicting_arguments_are_refused(token, arguments):
    done = token(*arguments)
    assert isinstance(done.exception, SettingsError)
