"""Processes that start in milliseconds: forked from one that has imported the agent, and has done nothing else yet.

Only the start of the interpreter and the imports are saved. The child runs the command itself, with a process id, a
log, an exit code and an end by signals of its own. Linux only, as the tests that use it.
"""

import faulthandler
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

# Not OpenVINO, which starts threads that it needs; a forked process has only the one that forked it.
PRELOADED = (
    "tests.edge.forked",
    "tests.edge.odd_agents",
    "tests.edge.cloud_double",
    "shared.cli",
    "edge.cli",
    "edge.agent",
    "edge.sources.mqtt",
    "grpc.aio",
    "onnxruntime",
    "cv2",
)


class Forked:
    """A process that calls `target(*arguments)`; its output is appended to `log`. Used like a `subprocess.Popen`."""

    def __init__(self, log: Path, target: Callable[..., object], *arguments: Any) -> None:
        self._process = _context().Process(
            target=_run, args=(log, dict(os.environ), os.getcwd(), target, arguments), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        self.wait(10)


def vedette(*arguments: str, most_file_bytes: int | None = None) -> None:
    """The command `vedette` with these arguments.

    `most_file_bytes`: no file may grow beyond, as on a full disk.
    """
    from shared.cli import main

    if most_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_file_bytes, resource.RLIM_INFINITY))
    sys.argv = ["vedette", *arguments]
    main()


def agent(config: Path) -> None:
    """`vedette edge run --config config`, without reading the command line, which takes as long as all else."""
    from edge.cli import run

    run(config)


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _run(log: Path, environment: dict[str, str], folder: str, target: Callable[..., object], arguments: Any) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    faulthandler.enable()
    target(*arguments)
