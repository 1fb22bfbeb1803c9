"""Shell scripts whose command `vedette` starts in milliseconds: forked from a process that has imported it.

Scripts run in bash as users run them, with redirections, pipes and here-documents. The client of a fork server stands
on the path as `vedette`. Linux only.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.fork_server import running_server, serve

# Modules that commands import when they run; not OpenVINO, which starts threads that a fork lacks.
PRELOADED = (
    "aiosqlite",
    "alembic.command",
    "cloud.api",
    "cloud.cli",
    "cloud.evaluation.evaluate",
    "cloud.evaluation.plots",
    "cloud.service.device_list",
    "cloud.service.main",
    "cloud.service.process",
    "cloud.service.signing_keys",
    "cloud.store.sqlite.migration",
    "cloud.store.sqlite.store",
    "cloud.training.train",
    "edge.cli",
    "onnx",
    "onnxruntime.quantization",
    "sklearn.ensemble",
)


@dataclass(frozen=True)
class Shell:
    """A bash with the command `vedette`. `path`: folders to search for commands."""

    path: str

    def run(
        self, script: str, folder: Path, environment: Mapping[str, str] | None = None, *, timeout_s: float = 300
    ) -> str:
        """Run a script in a folder until its first command that fails; return its output, errors among it.

        Raises AssertionError with the output if a command fails.
        """
        done = subprocess.run(
            ["bash", "-c", f"set -e -o pipefail\n{script}"],
            cwd=folder,
            env={**os.environ, **(environment or {}), "PATH": self.path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )
        assert done.returncode == 0, f"exit code {done.returncode} of\n{script}\n{done.stdout}"
        return done.stdout


@contextlib.contextmanager
def vedette_shell(folder: Path) -> Iterator[Shell]:
    """Start the server and yield a shell; `folder` gets its socket and its client."""
    client = folder / "bin" / "vedette"
    client.parent.mkdir()
    with running_server("tests.shell", client, folder):
        yield Shell(f"{client.parent}:{os.environ['PATH']}")


def _run(arguments: list[str]) -> int:
    """Run the command `vedette` and return its exit code."""
    from shared.cli import main

    sys.argv = ["vedette", *arguments]
    main()
    return 0


if __name__ == "__main__":
    serve(PRELOADED, _run)
