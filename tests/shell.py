"""Shell scripts whose command `vedette` starts in milliseconds: forked from a process that has imported it.

Scripts run in bash as users run them, with redirections, pipes and here-documents. A client of a few lines stands on
the path as `vedette`; it hands its arguments, folder, environment and streams to the server, which forks the command.
Linux only.
"""

import contextlib
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
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
_CLIENT = """#!{python} -ISE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
server.sendall(asked)
code = server.recv(1)
sys.exit(code[0] if code else 70)
"""


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
    address = folder / "vedette.socket"
    client = folder / "bin" / "vedette"
    client.parent.mkdir()
    client.write_text(_CLIENT.format(python=sys.executable, address=str(address)))
    client.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.shell", str(listener.fileno())], cwd=ROOT, pass_fds=[listener.fileno()]
        )
    try:
        yield Shell(f"{client.parent}:{os.environ['PATH']}")
    finally:
        server.terminate()
        server.wait(30)


def _serve(listener: socket.socket) -> None:
    """Fork a process for each request, without threads: a forked process has only the one that forked it."""
    while True:
        asked, _ = listener.accept()
        _reap()
        if os.fork() == 0:
            listener.close()
            _answer(asked)
        asked.close()


def _reap() -> None:
    """Collect the processes that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _answer(asked: socket.socket) -> None:
    """Run the requested command with the streams of its client, send its exit code, and end."""
    size, streams, _, _ = socket.recv_fds(asked, 8, 3)
    text = b""
    while len(text) < int.from_bytes(size, "big"):
        text += asked.recv(2**16)
    arguments, folder, environment = json.loads(text)
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code = _exit_code(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    asked.sendall(bytes([code]))
    os._exit(code)


def _exit_code(arguments: list[str]) -> int:
    import traceback

    from shared.cli import main

    sys.argv = ["vedette", *arguments]
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def _import_commands() -> None:
    """Import modules that commands import when they run; not OpenVINO, which starts threads that a fork lacks."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _import_commands()
    _serve(socket.socket(fileno=int(sys.argv[1])))
