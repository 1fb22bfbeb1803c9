"""A whole federated round: Flower's SuperLink, two SuperNodes, a real bundle in, and a new one out."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cloud.store import Store
from cloud.store.migrate import migrate
from cloud.store.registry import Registry, publish_to
from cloud.training import TrainingSettings, load_training_data, train_bundle
from edge.normal_buffer import NormalSnapshot
from shared import home
from shared.bundle import Bundle
from shared.modalities import load_preprocessor, preprocessing_id
from shared.modality import Modality

pytestmark = pytest.mark.system

FEATURES = 6
START_TIMEOUT_S = 60.0
VEDETTE = str(Path(sys.executable).with_name("vedette"))


def normals(count: int, seed: int) -> np.ndarray:
    """Rows that vary along two hidden directions, as readings of one machine do."""
    generator = np.random.default_rng(seed)
    hidden = generator.normal(size=(count, 2))
    mixing = np.random.default_rng(0).normal(size=(2, FEATURES))
    return (hidden @ mixing + 0.1 * generator.normal(size=(count, FEATURES))).astype(np.float32)


def wait_for(path: Path, child: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not path.exists():
        assert child.poll() is None, "it ended at its start"
        assert time.monotonic() < deadline_s, f"{path} did not appear"
        time.sleep(0.1)


class Children:
    """`vedette` commands in sessions of their own, and all processes that come of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.out").open("wb") as output:
            child = subprocess.Popen(
                [VEDETTE, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OF_THIS_TEST": str(self.folder)},
                start_new_session=True,
            )
        self.running.append(child)
        return child

    def family(self) -> list[str]:
        """The command lines of all living processes started here, directly or not."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if f"OF_THIS_TEST={self.folder}".encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    children = Children(tmp_path)
    yield children
    for child in children.running:
        if child.poll() is None:
            child.kill()
            child.wait()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory whose registry holds a small tabular bundle, `pump`."""
    np.savez(tmp_path / "normal.npz", X=normals(1500, 1))
    settings = TrainingSettings.model_validate(
        {
            "name": "pump",
            "effort": 0.1,
            "hidden": [32, 32],
            "head": {"steps": 1500, "batch_size": 128, "perturbed": 40_000},
        }
    )
    data = load_training_data(tmp_path / "normal.npz", Modality.TABULAR)
    bundle = train_bundle(data, settings, home.signing_key(), lambda *_: None)
    folder = tmp_path / "cloud"
    folder.mkdir()
    migrate(folder)
    asyncio.run(publish_to(folder, bundle, home.trusted_key()))
    return folder


async def current_bundle(data_dir: Path) -> Bundle:
    async with Store(data_dir) as store:
        registry = Registry(store, data_dir, home.trusted_key())
        current = await registry.current("pump")
        assert current is not None
        return await registry.bundle(current.bundle_id)


def write_buffer(folder: Path, bundle: Bundle, seed: int, count: int = 400) -> None:
    """The normal buffer of an agent that has screened `count` rows with the bundle."""
    inputs = load_preprocessor(bundle).prepare(normals(count, seed)).inputs
    snapshot = NormalSnapshot(inputs, len(inputs), preprocessing_id(bundle.manifest), "pump")
    path = folder / "normal_buffer" / "source.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(snapshot.to_bytes())
    (folder / "edge.toml").write_text(f'state_dir = "{folder}"\n')


def test_a_round_makes_a_new_bundle_and_everything_ends(tmp_path: Path, data_dir: Path, children: Children) -> None:
    before = asyncio.run(current_bundle(data_dir))
    config = tmp_path / "cloud.toml"
    config.write_text(f'data_dir = "{data_dir}"\n')
    state = data_dir / "federation"
    server = children.start("server", "federated", "server", "--config", str(config), "--listen", "127.0.0.1:0")
    wait_for(state / "server.json", server)
    address = json.loads((state / "server.json").read_text())["address"]
    for seed, name in enumerate(("north", "south"), start=2):
        write_buffer(tmp_path / name, before, seed)
        children.start(name, "federated", "node", "--config", str(tmp_path / name / "edge.toml"), "--server", address)
    result = tmp_path / "round.json"
    run = children.start(
        *("run", "federated", "run", "--bundle-name", "pump", "--config", str(config), "--json", str(result)),
        *("--local-steps", "60"),
    )
    assert run.wait(timeout=240) == 0, (tmp_path / "run.out").read_text()

    report = json.loads(result.read_text())
    after = asyncio.run(current_bundle(data_dir))
    assert report["status"] == "completed"
    assert report["clients"] == 2
    assert report["bundle_before"] == before.manifest.bundle_id
    assert report["bundle_after"] == after.manifest.bundle_id != before.manifest.bundle_id
    assert [client["num-examples"] for client in report["details"][0]["clients"].values()] == [400.0, 400.0]
    assert after.manifest.version == before.manifest.version + 1
    assert after.manifest.parent_bundle_id == before.manifest.bundle_id
    assert preprocessing_id(after.manifest) == preprocessing_id(before.manifest)
    assert after.read("cloud/head.safetensors") != before.read("cloud/head.safetensors")

    status = subprocess.run(
        [VEDETTE, "federated", "status", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "2 nodes online" in status.stdout
    assert "1 rounds done" in status.stdout

    started_s = time.monotonic()
    for child in reversed(children.running[:3]):  # the nodes before the server
        child.send_signal(signal.SIGTERM)
    codes = [child.wait(timeout=5) for child in children.running[:3]]
    assert time.monotonic() - started_s < 5
    assert codes == [0, 0, 0]
    assert children.family() == []
    assert not (state / "server.json").exists()
