"""Supervised child processes that always end together with all their descendants.

Flower's commands start further processes, some in new sessions, so ending a process group is not enough. On Linux a
child gets a tag in its environment, which all descendants inherit: /proc lists them even after their parents have
ended, and this process adopts and reaps them. On other systems only the process group is ended. A child receives
SIGTERM when this process dies for any reason, or the end of its standard input.
"""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from shared.parent_process import request_signal

STOP_GRACE_S = 2.0
KILL_WAIT_S = 1.0
REAP_WAIT_S = 0.5
_PR_SET_CHILD_SUBREAPER = 36
_TAG = "SUPERVISION_TAG"
_ON_LINUX = sys.platform == "linux"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = " \t│─╭╮╰╯"
_NOISE = ("For more information, visit", "INFO", "WARNING", "File ", "^", "~", "|")
_TELLING_WORDS = ("error", "cannot", "failed", "unavailable", "refused", "denied", "invalid")


class SupervisedProcess:
    """Child process in its own process group, with its output appended to `log`.

    `until_eof`: the child ends itself at the end of its standard input, which comes when this process dies. Nothing
    then runs between fork and exec: a process with the threads of gRPC cannot fork safely.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        folder: Path,
        until_eof: bool = False,
    ):
        log.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.log = log
        if _ON_LINUX:
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        tag = f"{_TAG}_{uuid.uuid4().hex}"  # a unique name: a child may supervise children too
        self._tag = f"{tag}=1".encode()

        with log.open("ab") as output:
            self._log_start = output.tell()
            self._child = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE if until_eof else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment, tag: "1"},
                cwd=folder,
                process_group=0,  # Ctrl-C reaches only this process, which ends the child in order
                preexec_fn=partial(request_signal, signal.SIGTERM) if _ON_LINUX and not until_eof else None,
            )

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    def exit_code(self) -> int | None:
        """Return the exit code of the child, or None while it runs."""
        return self._child.poll()

    def output(self) -> str:
        """Return the output of the child so far."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def last_error(self) -> str:
        """Return the line of the child's output that most likely explains its end."""
        lines = [line.strip(_FRAME) for line in _COLOUR.sub("", self.output()).splitlines()]
        lines = [line for line in lines if line and line != "Error"]  # the title of a frame around the message
        telling = [line for line in lines if not line.startswith(_NOISE)]
        marked = [line for line in telling if any(word in line.lower() for word in _TELLING_WORDS)]
        return (marked or telling or lines or ["it printed nothing"])[-1]

    def request_stop(self) -> None:
        """Send SIGTERM to the child's group and return at once; call `stop` afterwards."""
        self._send(signal.SIGTERM)

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End the child and all descendants: SIGTERM first, SIGKILL after `grace_s` seconds."""
        groups = {self.pid} | {_stat(pid).group for pid in _descendants(self._tag, self.pid)}
        self._send(signal.SIGTERM)
        deadline_s = time.monotonic() + grace_s
        while (living := _descendants(self._tag, self.pid)) or self._child.poll() is None:
            groups |= {_stat(pid).group for pid in living}
            if time.monotonic() > deadline_s:
                self._kill(living)
                break
            time.sleep(0.05)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(KILL_WAIT_S)
        if self._child.stdin is not None:
            self._child.stdin.close()
        _reap(groups, but_not=self.pid)

    def _kill(self, family: set[int]) -> None:
        self._send(signal.SIGKILL)
        for pid in family:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        deadline_s = time.monotonic() + KILL_WAIT_S
        while _descendants(self._tag, self.pid) and time.monotonic() < deadline_s:
            time.sleep(0.02)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class _Interrupt:
    """State of interrupts: whether they are deferred, and whether one waits."""

    deferred = False
    waiting = False


_interrupt = _Interrupt()


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Defer an interrupt within `stoppable` to the end of this block; main thread only.

    A child that was just started must be recorded first, or nothing would end it.
    """
    _interrupt.deferred, _interrupt.waiting = True, False
    try:
        yield
    finally:
        _interrupt.deferred = False
    if _interrupt.waiting:
        _interrupt_now()


@contextlib.contextmanager
def supervised(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str], folder: Path
) -> Iterator[SupervisedProcess]:
    """Run a child that always ends with this block, also if an interrupt comes while it starts."""
    child: SupervisedProcess | None = None
    try:
        with interrupts_deferred():
            child = SupervisedProcess(command, log=log, environment=environment, folder=folder)
        yield child
    finally:
        if child is not None:
            child.stop()


def _interrupt_now() -> NoReturn:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt in the main thread within this block, so that clean-up runs.

    A second signal is ignored: it would interrupt the clean-up, which has its own time limit.
    """

    def raise_once(number: int, frame: FrameType | None) -> None:
        if not _interrupt.deferred:
            _interrupt_now()
        # Do not ignore signals yet: a child that is being started would inherit that and could not be ended.
        _interrupt.waiting = True

    before: dict[signal.Signals, Any] = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    for each in before:
        signal.signal(each, raise_once)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _descendants(tag: bytes, group: int) -> set[int]:
    """Return the ids of all running processes with `tag` in their environment, and of those in `group`.

    Ray's workers stay in the group, and write their title over their environment. Empty without /proc.
    """
    found: set[int] = set()
    for entry in _processes():
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            # A zombie has an empty environment.
            if tag in Path(entry.path, "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
        stat = _stat(int(entry.name))
        if stat.group == group and stat.state not in ("", "Z"):
            found.add(int(entry.name))
    return found


class _Stat(NamedTuple):
    """First fields of /proc/PID/stat; an empty state and zeros for a process that has ended."""

    state: str
    parent: int
    group: int


def _stat(pid: int) -> _Stat:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return _Stat("", 0, 0)
    return _Stat(fields[0], int(fields[1]), int(fields[2]))


def _reap(groups: set[int], *, but_not: int) -> None:
    """Reap ended processes of those groups that this process has adopted.

    Flower's helpers never reap their own children. A helper that is just ending has children that are not adopted yet,
    so this waits a moment. The process `but_not` is reaped by its own Popen object.
    """
    deadline_s = time.monotonic() + REAP_WAIT_S
    while time.monotonic() < deadline_s:
        stats = {int(entry.name): _stat(int(entry.name)) for entry in _processes()}
        left = {pid: stat for pid, stat in stats.items() if stat.group in groups and pid != but_not}
        for pid, stat in left.items():
            if stat.state == "Z" and stat.parent == os.getpid():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        if not left:
            return
        time.sleep(0.02)


def _processes() -> Iterator[os.DirEntry[str]]:
    """Return the /proc entries of all processes; none without /proc."""
    return (entry for entry in os.scandir("/proc") if entry.name.isdigit()) if _ON_LINUX else iter(())
