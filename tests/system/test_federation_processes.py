"""Flower's SuperLink and a SuperNode as commands: they connect, are listed, and end in order."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

START_TIMEOUT_S = 60.0
VEDETTE = str(Path(sys.executable).with_name("vedette"))


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


def shown_status(state: Path, words: str) -> str:
    """Return the output of `vedette federated status` as soon as it contains `words`."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        command = [VEDETTE, "federated", "status", "--state-dir", str(state)]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if words in shown.stdout:
            return shown.stdout
        assert time.monotonic() < deadline_s, shown.stdout + shown.stderr
        time.sleep(0.5)


def test_a_server_and_a_node_meet_and_everything_ends(tmp_path: Path, children: Children) -> None:
    state = tmp_path / "federation"
    server = children.start("server", "federated", "server", "--state-dir", str(state), "--listen", "127.0.0.1:0")
    wait_for(state / "server.json", server)
    address = json.loads((state / "server.json").read_text())["address"]
    buffer = tmp_path / "normal_buffer.npz"
    node = children.start("node", "federated", "node", "--buffer", str(buffer), "--server", address)
    shown_status(state, "1 nodes online")
    started_s = time.monotonic()
    for child in (node, server):  # the node before the server
        child.send_signal(signal.SIGTERM)
    codes = [child.wait(timeout=5) for child in (node, server)]
    assert time.monotonic() - started_s < 5
    assert codes == [0, 0]
    assert children.family() == []
    assert not (state / "server.json").exists()
