"""The commands in the documents work: each `sh` block runs in bash, in a prepared folder."""

import asyncio
import itertools
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.methods.encoders import encoder_bytes
from cloud.service.data_dir import prepare
from cloud.store import open_store
from cloud.store.api_tokens import Scope, add_api_token
from cloud.store.registry import Registry
from cloud.training.modalities import load_training_data
from cloud.training.settings import TrainingSettings
from cloud.training.stages import TrainingRun
from shared.bundle import ENCODER_FILE, Bundle, sign
from shared.images import encode_png
from shared.modality import Modality
from shared.signing_keys import key_id, load_signing_key, public_pem
from tests.cloud.console.filled_store import add_devices
from tests.cloud.rest.served import served_api
from tests.documents import BLOCKS, ROOT, Block, commands
from tests.shell import Shell, vedette_shell

# Commands that cannot run here, by their beginning. Every other command of the documents runs.
NOT_RUN = {
    "apt-get": "installs packages of the system",
    "helm": "needs a cluster; tests/test_deploy_chart.py renders the chart",
    "kubectl": "needs a cluster; tests/test_deploy_roles.py reads the manifests",
    "python3 -m venv audit": "makes an environment for `audit/bin/pip`",
    "audit/bin/pip": "needs a package index",
    "audit/bin/pip-audit": "needs advisories over the network",
    "docker": "needs a container engine; tests/test_deploy.py compares the files with the program",
    "sudo": "changes users, packages and services of the machine; tests/test_deploy.py reads the unit",
    "journalctl": "needs the unit of `sudo systemctl`",
    "make": "runs all tests, checks, benchmarks or the demo, each a target of its own in continuous integration",
    "pip install": "needs a package index",
    "vedette bench cloud": "takes minutes; tests/cloud/bench runs each benchmark with small numbers",
    "vedette bench console": "takes minutes; tests/cloud/bench/test_console_bench.py runs it with small numbers",
    "vedette cloud compare press": "needs stored samples; tests/cloud/service/test_comparison_commands.py runs it",
    "vedette cloud compare show": "needs a comparison; tests/cloud/service/test_comparison_commands.py runs it",
    "vedette cloud notices test": "sends messages to people; tests/cloud/service/test_notices.py runs it",
    "vedette cloud restore monday.tar --config postgres.toml": (
        "needs PostgreSQL; tests/cloud/service/test_backup.py restores into both stores"
    ),
    "vedette cloud serve": (
        "runs until it is stopped, a role only with PostgreSQL; tests/system/test_quick_start.py and "
        "tests/cloud/service/test_killed_roles.py start it"
    ),
    "vedette retrain": "needs a hundred stored samples and labels; tests/cloud/retraining/test_retrain.py runs it",
    "vedette federated": "needs certificates and several machines; tests/system/test_federation_processes.py runs them",
}
# Blocks that another test runs, by their first line.
RUN_ELSEWHERE = {". .venv/bin/activate": "tests/system/test_quick_start.py"}
COMMAND_LINE = re.compile(r"^\s*(\$ )?(vedette|pip|sudo|apt-get|make|docker|helm|kubectl) ", re.MULTILINE)
OUTPUT_OPTIONS = {"--output", "--json", "--plots"}
API = "http://127.0.0.1:7480/api/v1"
# Settings of training from the environment: the same commands in seconds. A gate without bounds ranks no layers.
QUICK = {
    "VEDETTE_ANALYZERS": '["knn"]',
    "VEDETTE_DEVICE": "cpu",
    "VEDETTE_EFFORT": "0.01",
    "VEDETTE_HEAD": '{"steps": 30, "batch_size": 64, "perturbed": 500}',
    "VEDETTE_HIDDEN": "[16]",
    "VEDETTE_IMAGE": '{"height": 32, "width": 32, "patches": 1000, "feature_dim": 8}',
    "VEDETTE_QUANTISATION": '{"images": 10, "samples": 20}',
    "VEDETTE_TOLERANCES": '{"rank_correlation": 0, "label_agreement": 0, "fp32_score_difference": 9}',
}


def _why_not(command: list[str]) -> str | None:
    """Return the beginning in NOT_RUN that fits a command."""
    return next((begin for begin in NOT_RUN if command[: len(begin.split())] == begin.split()), None)


def _script(block: Block) -> str:
    """Return the lines of a block that run here."""
    if block.text.splitlines()[0] in RUN_ELSEWHERE:
        return ""
    lines = block.text.replace("\\\n", " ").splitlines()
    kept = [line for line in lines if not any(_why_not(command) for command in commands(line))]
    return "\n".join(kept) if any(list(commands(line)) for line in kept) else ""


SCRIPTS = {block: script for block in BLOCKS if block.language == "sh" and (script := _script(block))}


FIRST = next(block for block in SCRIPTS if "--output press.vedette" in block.text)
OTHERS = [
    pytest.param(block, id=str(block), marks=[pytest.mark.long] if "--modality image" in block.text else [])
    for block in SCRIPTS
    if block is not FIRST
]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with vedette_shell(tmp_path_factory.mktemp("shell")) as started:
        yield started


@pytest.fixture(scope="module")
def trained(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a service's folder, and the bundles `press`, which a block of docs/TRAINING.md made, and `camera`."""
    folder = tmp_path_factory.mktemp("docs")
    _write_data(folder)
    prepare(folder / "cloud-state")
    (folder / "cloud.toml").write_text('data_dir = "cloud-state"\n')
    _run(FIRST, shell, folder, {})
    _train_camera(folder)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of that folder with the further files that the pages name, all signed by one key."""
    copy = tmp_path / "docs"
    shutil.copytree(trained, copy)
    key = load_signing_key(copy / ".vedette" / "signing.pem")
    (copy / "bundle_key.pem").write_bytes(public_pem(key.public_key()))
    press = Bundle.open(copy / "press.vedette", [key.public_key()])
    for version, name in ((1, "press"), (2, "press-2"), (3, "press-3")):
        changed = press.manifest.model_copy(update={"version": version})
        sign(changed, press.files, key).save(copy / f"{name}.vedette")
    shutil.copy(copy / "press.vedette", copy / "pump.vedette")
    shutil.copytree(copy / "good-photos", copy / "photos")
    (copy / "deploy" / "secrets").mkdir(parents=True)
    (copy / "deploy" / "secrets" / "enrolment_token").touch()
    return copy


def _train_camera(folder: Path) -> None:
    """Save a bundle that scores images but has no screener: to export one takes 7 s of processor time."""
    settings = TrainingSettings.load(None, QUICK)
    run = TrainingRun(
        load_training_data(folder / "good-photos", Modality.IMAGE, settings.data),
        settings,
        settings.analyzers,
        lambda stage, share: None,
    )
    run.fit()
    assert run.encoder is not None
    key = load_signing_key(folder / ".vedette" / "signing.pem")
    press = Bundle.open(folder / "press.vedette", [key.public_key()])
    screener = {path: data for path, data in press.files.items() if path.startswith("edge/")}
    files = {**screener, **run.preprocessor.files(), **run.fitted.analysis.files()}
    manifest = press.manifest.model_copy(update={"modality": Modality.IMAGE, "input": run.preprocessor.spec})
    sign(manifest, {**files, ENCODER_FILE: encoder_bytes(run.encoder)}, key).save(folder / "camera.vedette")


def _write_data(folder: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 2)) @ np.array([[1.0, 0.5, -1.0, 2.0], [0.0, 1.0, 1.0, 0.5]])
    np.savetxt(folder / "readings.csv", rows, delimiter=",", header="flow,pressure,current,speed", comments="")
    photos = folder / "good-photos"
    photos.mkdir()
    for number in range(40):
        image = np.random.default_rng(number).integers(100, 150, (32, 32, 3)).astype(np.uint8)
        (photos / f"{number}.png").write_bytes(encode_png(image))
    minutes = range(600)
    text = [f"{np.sin(minute / 5) + rows[minute % 200, 0] / 50:.3f}".replace(".", ",") for minute in minutes]
    times = [f"{1 + minute // 1440:02d}.08.2026\t{minute // 60 % 24:02d}:{minute % 60:02d}" for minute in minutes]
    lines = [f"{time}\t{value}" for time, value in zip(times, text, strict=True)]
    (folder / "export.csv").write_text("\n".join(["Datum\tZeit\tDruck", *lines]) + "\n")
    times = [f"01-Sep-2026 {minute // 60:02d}:{minute % 60:02d}" for minute in minutes]
    lines = [f"{time}\t{value}" for time, value in zip(times, text, strict=True)]
    (folder / "september.csv").write_text("\n".join(["Zeitpunkt\tDruck", *lines]) + "\n")


def _run(block: Block, shell: Shell, folder: Path, placeholders: Mapping[str, str], **environment: str) -> None:
    """Run the commands of a block; they must write each file and folder that an option names as output."""
    home = {"HOME": str(folder), "VEDETTE_HOME": str(folder / ".vedette")}
    where = folder / "deploy" if block.page.parent.name == "deploy" else folder
    script = SCRIPTS[block]
    for placeholder, value in placeholders.items():
        script = re.sub(rf"\b{placeholder}\b", value, script)
    outputs = {
        where / value
        for command in commands(script)
        for option, value in itertools.pairwise(command)
        if option in OUTPUT_OPTIONS
    }
    before = {path: _written_at_ns(path) for path in outputs}
    shell.run(script, where, {**home, **QUICK, **environment})
    assert not [path for path in outputs if _written_at_ns(path) <= before[path]], "an output was not written"


def _written_at_ns(path: Path) -> int:
    """Return the last modification of a file, or of any file of a folder; 0 if there is none."""
    return max((each.stat().st_mtime_ns for each in (path, *path.rglob("*")) if each.exists()), default=0)


@pytest.mark.parametrize("block", OTHERS)
def test_the_commands_of_a_block_work(block: Block, shell: Shell, folder: Path, tmp_path: Path) -> None:
    key = load_signing_key(folder / ".vedette" / "signing.pem").public_key()
    press = Bundle.open(folder / "press.vedette", [key])
    devices = sorted(set(re.findall(r"\bpress-\d\d\b", block.text)))
    asyncio.run(_add_to_service(folder / "cloud-state", press, key, devices))
    placeholders = {"BUNDLE_ID": Bundle.peek(folder / "press-3.vedette").bundle_id, "KEY": key_id(key)}
    if API not in block.text:
        _run(block, shell, folder, placeholders)
        return
    with served_api(tmp_path / "api") as (url, token):
        _run(block, shell, folder, {**placeholders, API: url}, VEDETTE_API_TOKEN=token)


def test_the_last_training_gives_the_version_that_it_names(trained: Path) -> None:
    assert "--version 4" in FIRST.text
    assert Bundle.peek(trained / "press.vedette").version == 4


def test_a_block_that_cannot_run_is_listed_with_its_reason() -> None:
    told = [command for block in BLOCKS if block.language == "sh" for command in commands(block.text)]
    assert {_why_not(command) for command in told} >= set(NOT_RUN)
    firsts = {block.text.splitlines()[0] for block in BLOCKS}
    assert set(RUN_ELSEWHERE) <= firsts
    assert all((ROOT / test).is_file() for test in RUN_ELSEWHERE.values())


def test_commands_are_in_blocks_that_run() -> None:
    hidden = [str(block) for block in BLOCKS if block.language == "text" and COMMAND_LINE.search(block.text)]
    assert not hidden, "fence these as `sh`"


@pytest.mark.parametrize("line", ["vedette cloud serve", "a\n  $ vedette cloud serve", "sudo pip install vedette"])
def test_a_command_in_a_block_of_text_is_found(line: str) -> None:
    assert COMMAND_LINE.search(line)


def test_an_output_that_was_there_before_must_be_written_again(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "press.vedette").touch()
    for script in ("true --output press.vedette", "true --output other.vedette"):
        block = Block(ROOT / "README.md", 1, "sh", script)
        monkeypatch.setitem(SCRIPTS, block, script)
        with pytest.raises(AssertionError, match="an output was not written"):
            _run(block, shell, tmp_path, {})


@pytest.mark.parametrize("script", ["vedette cloud devices --config nothing.toml", "no-such-command", "false | true"])
def test_a_command_that_fails_is_found(script: str, shell: Shell, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=f"exit code [0-9]+ of\n{re.escape(script)}"):
        shell.run(f"{script}\ntrue", tmp_path)


async def _add_to_service(data_dir: Path, bundle: Bundle, key: Ed25519PublicKey, devices: list[str]) -> None:
    """Publish the bundle, and add devices and the token that the pages name."""
    async with open_store(data_dir) as store:
        await Registry(store, data_dir, key).publish(bundle)
        await add_devices(store, *devices)
        await add_api_token(store, "k3m9xq2v7ta4", "secret", name="old", scopes=list(Scope), expires_at_s=9e9)
