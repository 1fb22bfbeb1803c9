"""The service as a process of its own, as `vedette cloud serve` starts it."""

import asyncio
import contextlib
import io
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from unittest import mock

from cloud.settings import CloudSettings
from shared.cli import main
from shared.signing_keys import public_pem

VEDETTE = Path(sys.executable).with_name("vedette")


def write_settings(folder: Path, key, **changes: str) -> Path:
    (folder / "bundle_key.pem").write_bytes(public_pem(key.public_key()))
    values = {
        "data_dir": str(folder / "data"),
        "listen": "127.0.0.1:0",
        "enrolment_listen": "127.0.0.1:0",
        "console_listen": "127.0.0.1:0",
        "bundle_key": str(folder / "bundle_key.pem"),
        **changes,
    }
    path = folder / "cloud.toml"
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `vedette cloud` as a process, which takes a second of processor time to import the command."""
    command = [str(VEDETTE), "cloud", *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `vedette cloud` in this process, from its entry point to its exit code; not inside a running event loop."""
    command = ["vedette", "cloud", *(str(argument) for argument in arguments)]
    code: str | int | None = 0
    with (
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as errors,
        mock.patch.object(sys, "argv", command),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    return subprocess.CompletedProcess(command, int(code or 0), output.getvalue(), errors.getvalue())


class Served:
    """`vedette cloud serve` until the end of the block; killed if it still runs then."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.data_dir = CloudSettings.load(config, {}).data_dir
        self.log = config.with_name("service.log")
        with self.log.open("ab") as log:
            command = [str(VEDETTE), "cloud", "serve", "--config", str(config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    async def __aenter__(self):
        deadline_s = time.monotonic() + 60
        while not (self.data_dir / "service.json").exists() or self.facts["pid"] != self.process.pid:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline_s, self.log.read_text()
            await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def facts(self) -> dict:
        with contextlib.suppress(FileNotFoundError):
            return json.loads((self.data_dir / "service.json").read_bytes())
        return {"pid": None}

    @property
    def analysis_pid(self) -> int:
        """The process that judges for the service."""
        (found,) = self.analysis_pids
        return found

    @property
    def analysis_pids(self) -> list[int]:
        """The processes that judge for the service; none between two of them."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has ended
                state, parent = path.read_text().rpartition(")")[2].split()[:2]
                if parent == str(self.process.pid) and state != "Z":
                    found.append(int(path.parent.name))
        return found

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.facts["console_url"] + path, timeout=10) as answer:
            return answer.read().decode()
