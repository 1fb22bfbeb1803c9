"""`vedette cloud compare`: with a service and without one, earlier comparisons, and what its errors say."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cloud.comparison.report import ComparisonItem
from cloud.service import comparing
from cloud.service.data_dir import service_lock
from cloud.store.comparisons import AskedSamples, ComparisonStatus, SampleChoice, claim, comparison_page, start
from cloud.store.labels import Label
from cloud.store.registry import Registry
from shared.cli import build
from shared.errors import ConnectionFailedError, StorageError, VedetteError
from shared.signing_keys import public_pem
from tests.cloud.comparison.stored_rows import send, send_unjudged
from tests.cloud.console.filled_store import add_devices, open_store
from tests.cloud.service.harness import running, settings_for


class Command:
    """The command on the store in a folder, and the JSON of its last result."""

    def __init__(self, folder: Path, key) -> None:
        (folder / "key.pem").write_bytes(public_pem(key.public_key()))
        self.config, self.result = folder / "cloud.toml", folder / "result.json"
        self.config.write_text(f'data_dir = "{folder}/data"\nbundle_key = "{folder}/key.pem"\n')
        self.pair = ("", "")

    def run(self, *words: str) -> Result:
        options = ["--config", str(self.config), "--json", str(self.result)]
        return CliRunner().invoke(build("cloud").root, ["cloud", "compare", *words, *options])

    def fail(self, *words: str) -> tuple[str, int]:
        """The message of a failure and the exit code in its result."""
        failed = self.run(*words)
        assert isinstance(failed.exception, VedetteError), failed.output
        return str(failed.exception), self.json()["exit_code"]

    def json(self) -> dict:
        return json.loads(self.result.read_text())

    async def until(self, status: ComparisonStatus) -> None:
        """Return once the newest comparison has a status."""
        store, _ = open_store(self.config.parent / "data")
        async with store, asyncio.timeout(60):
            while True:
                async with store.reading() as connection:
                    found = await comparison_page(connection, size=1)
                if found and found[0].status is status:
                    return
                await asyncio.sleep(0.1)


async def fill(folder: Path, biopsies) -> tuple[str, str]:
    """Store two versions of a bundle, and 12 labelled samples of each kind; return the ids, the current one first."""
    (folder / "data").mkdir(exist_ok=True)
    store, _ = open_store(folder / "data")
    async with store:
        registry = Registry(store, folder / "data", biopsies.key.public_key())
        first = (await registry.publish(biopsies.bundle)).bundle_id
        second = (await registry.publish(biopsies.version(2), make_current=False)).bundle_id
        await add_devices(store, "lab-1")
        await send(store, first, biopsies.anomalous[:12], Label.REAL)
        await send(store, first, biopsies.normal[:12], Label.FALSE_ALARM)
    return first, second


@pytest.fixture
def command(tmp_path: Path, biopsies) -> Command:
    made = Command(tmp_path, biopsies.key)
    made.pair = asyncio.run(fill(tmp_path, biopsies))
    return made


@pytest.mark.system
def test_without_a_service_the_command_judges_and_prints_the_figures(command: Command) -> None:
    first, second = command.pair
    done = command.run("biopsy", second, "--samples", "100")
    assert done.exit_code == 0, done.output
    found = command.json()
    assert (found["status"], found["samples"], found["judged"]) == ("completed", 24, 24)
    assert (found["first_bundle_id"], found["second_bundle_id"]) == (first, second)
    assert found["figures"]["agreement"]["value"] == 1.0, "the analyzers are the same"
    assert found["figures"]["first"]["auroc"] > 0.9
    lines = done.stdout.splitlines()
    (heads,) = [line for line in lines if line.startswith(" ") and first in line]
    (aurocs,) = [line for line in lines if line.startswith("AUROC on labelled")]
    assert heads.index(second) == aurocs.rindex(f"{found['figures']['second']['auroc']:.3f} ("), "columns are aligned"
    assert "They agree on 100" in done.stdout
    assert "Note: only 24 stored samples fit; 100 were asked for." in lines
    assert "comparing: " in done.stderr
    assert f"1  {first} and {second}  completed, 24 of 24 samples" in command.run("list").stdout
    (listed,) = command.json()["comparisons"]
    assert listed == {name: value for name, value in found.items() if name not in ("figures", "changed")}
    assert set(listed) == set(ComparisonItem.model_fields), "no more than the HTTP API says"
    assert command.run("show", "1").stdout == done.stdout
    text, code = command.fail(first, second, "--to", "2020-01-01")
    assert (text.startswith("Comparison 2 is failed. No stored sample fits"), code) == (True, 4)
    assert command.json()["comparison"]["status"] == "failed"


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_a_comparison_that_is_judged_here(command: Command, number: signal.Signals) -> None:
    program = Path(sys.executable).parent / "vedette"
    options = ["--config", command.config, "--json", command.result]
    with subprocess.Popen([program, "cloud", "compare", *command.pair, *options], stderr=subprocess.PIPE) as process:
        try:
            asyncio.run(command.until(ComparisonStatus.RUNNING))
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert command.json()["status"] == "stopped"
    assert command.run("show", "1").exit_code == 0
    assert command.json()["status"] == ComparisonStatus.CANCELLED


@pytest.mark.system
def test_without_a_service_only_the_own_comparison_is_judged_and_no_sample_waited_for(
    command: Command, biopsies
) -> None:
    async def leave() -> None:
        store, _ = open_store(command.config.parent / "data")
        async with store:
            await send_unjudged(store, command.pair[0], biopsies.normal[:1], time.time() - 60)

    asyncio.run(leave())
    assert command.run(*command.pair, "--no-wait").exit_code == 0
    done = command.run(*command.pair, "--samples", "8")
    assert done.exit_code == 0, done.output
    assert (command.json()["number"], command.json()["judged"]) == (2, 8)
    command.run("show", "1")
    assert command.json()["status"] == ComparisonStatus.WAITING


def test_a_comparison_that_no_service_judges_ends_the_command(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "UNATTENDED_S", 0.5)
    with service_lock(command.config.parent / "data"):  # as a service that only takes samples
        text, code = command.fail(*command.pair)
    assert text.startswith("No service judges samples: comparison 1 waits. Start vedette cloud serve")
    assert "or end it: vedette cloud compare cancel 1." in text
    assert code == ConnectionFailedError.exit_code
    assert (command.json()["comparison"]["number"], command.json()["comparison"]["status"]) == (1, "waiting")


async def test_a_failing_store_does_not_hide_why_a_comparison_ends(
    tmp_path: Path, biopsies, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise StorageError("The disk is full.")

    monkeypatch.setattr(comparing, "cancel", fail)
    pair = await fill(tmp_path, biopsies)
    (tmp_path / "key.pem").write_bytes(public_pem(biopsies.key.public_key()))
    settings = settings_for(tmp_path, bundle_key=tmp_path / "key.pem")
    store, _ = open_store(settings.data_dir)
    async with store:
        for _ in range(2):
            await start(store, *pair, AskedSamples(SampleChoice.NEWEST, 8), actor="account:ada", now_s=time.time())
        assert await claim(store, "another", time.time()), "the second waits"
        shown = asyncio.Event()
        following = asyncio.create_task(
            comparing.follow(store, 2, lambda _: shown.set(), comparing.runner_here(store, settings))
        )
        async with asyncio.timeout(30):
            await shown.wait()
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
    assert "comparison 2 is not cancelled: The disk is full. Next: vedette cloud compare cancel 2" in (
        capsys.readouterr().err
    )


async def test_a_service_judges_and_the_command_follows(tmp_path: Path, biopsies) -> None:
    command = Command(tmp_path, biopsies.key)
    pair = await fill(tmp_path, biopsies)
    settings = settings_for(tmp_path)
    with service_lock(settings.data_dir):
        async with running(settings, biopsies.key):
            followed = await asyncio.to_thread(command.run, *pair, "--labelled", "--samples", "10")
            assert followed.exit_code == 0, followed.output
            found = command.json()
            assert (found["status"], found["judged"], found["figures"]["real"]) == ("completed", 10, 5)
            assert "Note: Too few labelled samples: 5 real and 5 false alarms." in followed.stdout


def test_a_comparison_waits_for_a_service_and_can_be_cancelled(command: Command) -> None:
    _, second = command.pair
    assert command.run("list").stdout == "No comparison yet. Start one: vedette cloud compare NAME BUNDLE_ID\n"
    queued = command.run(second, "biopsy", "--no-wait", "--from", "2026-01-01")
    assert queued.stdout == (
        "Comparison 1 waits for its turn once a service runs. Next: vedette cloud compare show 1\n"
    )
    assert (command.json()["status"], command.json()["first_bundle_id"]) == ("waiting", second)
    assert command.json()["asked"]["since"] == "2026-01-01T00:00:00.000000Z"
    assert "waits for its turn" in command.run("show", "1").stdout
    assert "cancelled" in command.run("cancel", "1").stdout
    assert command.json()["status"] == ComparisonStatus.CANCELLED
    assert command.fail("cancel", "1") == ("This comparison is cancelled already.", 5)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("biopsie-1-0badcafe SECOND", "No bundle 'biopsie-1-0badcafe' in the registry: did you mean 'biopsy"),
        ("zzz SECOND", "No bundle 'zzz' in the registry: names are biopsy."),
        ("biopsy FIRST", "Choose two different bundles of one name."),
        ("biopsy", "Write two bundles"),
        ("biopsy SECOND third", "Write two bundles"),
        ("show seven", "'seven' is no number of a comparison: vedette cloud compare list"),
        ("show 7", "No comparison 7"),
        ("cancel 7", "No comparison 7"),
        ("list --labelled", "belong to a new comparison"),
        ("biopsy SECOND --from yesterday", "'yesterday' is not a time"),
    ],
)
def test_a_wrong_command_says_what_to_write(command: Command, words: str, named: str) -> None:
    first, second = command.pair
    text, code = command.fail(*words.replace("FIRST", first).replace("SECOND", second).split())
    assert named in text
    assert code in (3, 4, 5)


def test_a_name_without_a_current_bundle_names_its_bundles(tmp_path: Path, biopsies) -> None:
    command = Command(tmp_path, biopsies.key)

    async def publish() -> str:
        (tmp_path / "data").mkdir()
        store, _ = open_store(tmp_path / "data")
        async with store:
            registry = Registry(store, tmp_path / "data", biopsies.key.public_key())
            return (await registry.publish(biopsies.bundle, make_current=False)).bundle_id

    made = asyncio.run(publish())
    assert command.fail("biopsy", made) == (
        f"'biopsy' has no current bundle: give the id of one of its bundles ({made}).",
        5,
    )
