"""Processes that start in milliseconds: forked from a server that has imported what they need.

A client of a few lines stands for the program. It hands its arguments, folder, environment and standard streams to the
server, which forks; the fork runs the program, and the client ends with its exit code. Linux only.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
END_S = 30.0
_PR_SET_PDEATHSIG = 1
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


@contextlib.contextmanager
def running_server(module: str, client: Path, folder: Path) -> Iterator[None]:
    """Run `python -m module`, which calls `serve`, until the end of the block; write the client's file.

    `folder` gets the socket, whose path may have about 100 characters.
    """
    address = folder / "fork.socket"
    client.write_text(_CLIENT.format(python=sys.executable, address=str(address)))
    client.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        command = [sys.executable, "-u", "-m", module, str(listener.fileno())]
        server = subprocess.Popen(command, cwd=ROOT, pass_fds=[listener.fileno()])
    try:
        yield
    finally:
        server.terminate()
        server.wait(END_S)


def serve(preloaded: Iterable[str], run: Callable[[list[str]], int]) -> None:
    """Import the modules, then fork a process for each request, which ends with the exit code of `run(arguments)`.

    The server has no threads: a forked process has only the one that forked it. Its listening socket is the file
    descriptor in its first argument.
    """
    ctypes.CDLL(None).prctl(
        _PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0
    )  # it ends with the tests, even if these are killed
    for name in preloaded:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    listener = socket.socket(fileno=int(sys.argv[1]))
    while True:
        asked, _ = listener.accept()
        _reap()
        if os.fork() == 0:
            listener.close()
            _answer(asked, run)
        asked.close()


def _reap() -> None:
    """Collect the processes that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _answer(asked: socket.socket, run: Callable[[list[str]], int]) -> None:
    """Run the request with the streams of its client, send its exit code, and end."""
    size, streams, _, _ = socket.recv_fds(asked, 8, 3)
    text = b""
    while len(text) < int.from_bytes(size, "big"):
        text += asked.recv(2**16)
    arguments, folder, environment = json.loads(text)
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code = run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    asked.sendall(bytes([code]))
    os._exit(code)
