"""Processes of the demo, each a `vedette` command as a user would start it."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from shared.errors import DemoError
from shared.supervision import SupervisedProcess, interrupts_deferred

STOP_GRACE_S = 3.5
POLL_S = 0.05


class Processes:
    """Child processes by name, each with a log in `log_folder`; leaving the context ends them and their children."""

    def __init__(self, log_folder: Path, environment: Mapping[str, str]) -> None:
        self._log_folder = log_folder
        self._environment = {**os.environ, **environment}
        self._children: dict[str, SupervisedProcess] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(*self._children)

    def log(self, name: str) -> Path:
        """Return the log file of a child."""
        return self._log_folder / f"{name}.log"

    def last_line(self, name: str) -> str:
        """Return the last line that a child has written, without the seconds before it; empty if there is none."""
        lines = self.log(name).read_text(errors="replace").splitlines() if self.log(name).exists() else []
        return lines[-1].partition(" s  ")[2] if lines else ""

    def start(self, name: str, *arguments: str) -> None:
        """Start `vedette ARGUMENTS` under a name."""
        with interrupts_deferred():
            self._children[name] = SupervisedProcess(
                [str(Path(sys.executable).with_name("vedette")), *arguments],
                log=self.log(name),
                environment=self._environment,
                folder=self._log_folder,
            )

    def run(self, name: str, *arguments: str, timeout_s: float = 300.0) -> str:
        """Run `vedette ARGUMENTS` to its end and return its output; raises DemoError if it fails."""
        self.start(name, *arguments)
        self.wait(name, timeout_s)
        return self._children.pop(name).output()

    def has_ended(self, name: str) -> bool:
        """Return whether a child has ended successfully; `check` raises for a failed one."""
        return self._children[name].exit_code() == 0

    def check(self) -> None:
        """Raise DemoError if a child ended with an error."""
        for name, child in self._children.items():
            if child.exit_code() not in (None, 0):
                raise self._failure(name)

    def wait(self, name: str, timeout_s: float) -> None:
        """Wait for a child to end; raises DemoError if it fails or takes over `timeout_s` seconds."""
        deadline_s = time.monotonic() + timeout_s
        while (code := self._children[name].exit_code()) is None:
            if time.monotonic() > deadline_s:
                raise DemoError(f"{name} did not end within {timeout_s:.0f} s: see {self.log(name)}.")
            time.sleep(POLL_S)
        if code != 0:
            raise self._failure(name)

    def stop(self, *names: str) -> None:
        """End the named children and their children concurrently, within about STOP_GRACE_S seconds."""
        children = [self._children.pop(name) for name in names if name in self._children]
        for child in children:
            child.request_stop()
        deadline_s = time.monotonic() + STOP_GRACE_S
        for child in children:
            child.stop(max(0.1, deadline_s - time.monotonic()))

    def _failure(self, name: str) -> DemoError:
        child = self._children[name]
        return DemoError(f"{name} failed with exit code {child.exit_code()}: {child.last_error()} (see {child.log})")
