"""Fork server: exit codes of programs that end early, and clients that die."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fork_server import running_server, serve

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and file descriptors over sockets")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("server")
    with running_server("tests.test_fork_server", folder / "client", folder):
        yield folder / "client"


@pytest.mark.parametrize(
    ("program", "code"),
    [("pass", 0), ("sys.exit(7)", 7), ("sys.exit('no')", 1), ("sys.exit()", 0), ("1 / 0", 70), ("os._exit(5)", 70)],
)
def test_the_client_ends_with_the_code_of_the_program(client: Path, program: str, code: int) -> None:
    done = subprocess.run([client, program], capture_output=True, text=True, timeout=30)
    assert done.returncode == code, done.stderr
    assert ("ZeroDivisionError" in done.stderr) is (program == "1 / 0")


def test_a_client_that_dies_leaves_no_process(client: Path) -> None:
    address = str(client.parent / "fork.socket")
    asked = f"import os; open({str(client.parent / 'pid')!r}, 'w').write(str(os.getppid()))"
    subprocess.run([client, asked], check=True, timeout=30)
    server = int((client.parent / "pid").read_text())
    for size in (b"", (100).to_bytes(8, "big")):
        with socket.socket(socket.AF_UNIX) as dying:
            dying.connect(address)
            if size:
                socket.send_fds(dying, [size], [0, 1, 2])
    until_s = time.monotonic() + 20
    while _running_children(server):
        assert time.monotonic() < until_s, "a fork goes on without its client"
        time.sleep(0.02)


def _running_children(pid: int) -> list[str]:
    """Return the children of a process that have not ended."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    states = {child: Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] for child in children}
    return [child for child, state in states.items() if state != "Z"]


def _run(arguments: list[str]) -> int:
    exec("import os, sys\n" + arguments[0], {})
    return 0


if __name__ == "__main__":
    serve((), _run)
