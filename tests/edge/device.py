"""A device for tests: its folder, its configuration, and the agent as the real command in a process of its own."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.edge.bundles import CHANNELS
from tests.edge.forked import Forked, vedette

ROOT = Path(__file__).parents[2]


def write_csv(path: Path, rows: np.ndarray, header: tuple[str, ...] = CHANNELS) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows.tolist())
    return path


def toml(values: dict[str, Any], prefix: str = "") -> str:
    """Nested values as TOML: tables, lists of tables, texts, numbers."""
    plain, tables = [], []
    for key, value in values.items():
        if isinstance(value, dict):
            tables.append(f"[{prefix}{key}]\n{toml(value, f'{prefix}{key}.')}")
        elif isinstance(value, list):
            tables += [f"[[{prefix}{key}]]\n{toml(item, f'{prefix}{key}.')}" for item in value]
        else:
            plain.append(f"{key} = {json.dumps(str(value) if isinstance(value, Path) else value)}")
    return "\n".join([*plain, *tables]) + "\n"


def get(address: str, path: str) -> tuple[int, str]:
    """Return status code and text of a page of the agent."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Device:
    """One device; `settings` are those of its edge.toml."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.state = folder, folder / "state"
        folder.mkdir(parents=True, exist_ok=True)
        self.settings = {"state_dir": self.state, **settings}
        self.config = folder / "edge.toml"
        self.process: Forked | subprocess.Popen[bytes] | None = None
        self.log = folder / "agent.log"

    def write(self) -> None:
        self.config.write_text(toml(self.settings))

    def start(self, *options: str, most_file_bytes: int | None = None) -> "Device":
        """Start the agent; its log goes on in the same file. `most_file_bytes`: as on a disk that is full then."""
        self.write()
        command = ("edge", "run", "--config", str(self.config), *options)
        self.process = Forked(self.log, partial(vedette, most_file_bytes=most_file_bytes), *command)
        return self

    def start_afresh(self, *options: str) -> "Device":
        """Start the agent as a user does, with an interpreter of its own."""
        self.write()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).parent / "vedette", "edge", "run", "--config", self.config, *options],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
            )
        return self

    def wait(self, timeout_s: float = 30) -> int:
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the agent goes on:\n{self.text()}") from None

    def run(self, *options: str, timeout_s: float = 30) -> int:
        return self.start(*options).wait(timeout_s)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def terminate(self, timeout_s: float = 5) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def status(self) -> dict[str, Any]:
        try:
            result: dict[str, Any] = json.loads((self.state / "status.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return result

    def counters(self) -> dict[str, int]:
        result: dict[str, int] = self.status().get("counters", {})
        return result

    def until(self, condition: Callable[[], object], timeout_s: float = 20) -> None:
        """Wait for a condition while the agent runs."""
        assert self.process is not None
        end_s = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"the agent ended:\n{self.text()}"
            assert time.monotonic() < end_s, f"in vain:\n{self.text()}\n{self.status()}"
            time.sleep(0.05)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(10)
