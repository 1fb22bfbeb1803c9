"""`vedette cloud compare`: with a service and without one, earlier comparisons, and what its errors say."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cloud.service.data_dir import service_lock
from cloud.store.comparisons import ComparisonStatus
from cloud.store.labels import Label
from cloud.store.registry import Registry
from shared.cli import build
from shared.errors import VedetteError
from shared.signing_keys import public_pem
from tests.cloud.comparison.stored_rows import send
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
    assert [item["number"] for item in command.json()["comparisons"]] == [1]
    assert command.run("show", "1").stdout == done.stdout
    text, code = command.fail(first, second, "--to", "2020-01-01")
    assert (text.startswith("Comparison 2 is failed. No stored sample fits"), code) == (True, 4)
    assert command.json()["comparison"]["status"] == "failed"


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
