"""Processes that start in milliseconds: forked from a server that has imported what they need.

A client of a few lines stands for the program. It hands its arguments, folder, environment and standard streams to the
server, which forks; the fork runs the program, and the client ends with its exit code. Linux only.
"""

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from shared.parent_process import end_with_parent

ROOT = Path(__file__).parents[1]
END_S = 30.0
FAILED = 70  # exit code of a program that raised an error
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
        command = [sys.executable, "-u", "-m", module, str(listener.fileno()), str(os.getpid())]
        server = subprocess.Popen(command, cwd=ROOT, pass_fds=[listener.fileno()])
    try:
        yield
    finally:
        server.terminate()
        server.wait(END_S)


def serve(preloaded: Iterable[str], run: Callable[[list[str]], int]) -> None:
    """Import the modules, then fork a process for each request, which ends with the exit code of `run(arguments)`.

    The server has no threads: a forked process has only the one that forked it. Its arguments are the file descriptor
    of its listening socket and the id of its parent, with which it ends.
    """
    end_with_parent(int(sys.argv[2]), signal.SIGTERM)
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
            _run_request(asked, run)
        asked.close()


def _reap() -> None:
    """Collect the processes that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _run_request(asked: socket.socket, run: Callable[[list[str]], int]) -> NoReturn:
    """Run the request with the streams of its client, send its exit code, and end this process."""
    code = FAILED
    try:
        if (arguments := _take(asked)) is not None:
            code = _code_of(run, arguments)
            asked.sendall(bytes([code]))
    except BaseException:  # else this process would go on as a second server
        traceback.print_exc()
    finally:
        os._exit(code)


def _take(asked: socket.socket) -> list[str] | None:
    """Take over folder, environment and streams of the client; return its arguments, None if it has gone."""
    size, streams, _, _ = socket.recv_fds(asked, 8, 3)
    text = b""
    while len(text) < int.from_bytes(size, "big"):
        if not (part := asked.recv(2**16)):
            return None
        text += part
    if not text:
        return None
    arguments, folder, environment = json.loads(text)
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    return list(arguments)


def _code_of(run: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Run the program and return its exit code, also after SystemExit and errors."""
    try:
        code = run(arguments)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    return code & 0xFF
