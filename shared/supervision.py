"""A long-running child process, and the promise that it ends with everything it started.

Flower's commands start helpers of their own, some in sessions of their own, so ending a process group is not enough. On
Linux a child gets a tag in its environment, which all its descendants inherit, and by which /proc tells them even after
their parents have ended; this process adopts and buries those. Elsewhere the process group has to do. A child is told
to end when this process dies, however it dies.
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
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

STOP_GRACE_S = 2.0
KILL_WAIT_S = 1.0
REAP_WAIT_S = 0.5
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_TAG = "SUPERVISION_TAG"
_ON_LINUX = sys.platform == "linux"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = " \t│─╭╮╰╯"
_NOISE = ("For more information, visit", "INFO", "WARNING", "File ", "^", "~", "|")
_TELLING_WORDS = ("error", "cannot", "failed", "unavailable", "refused", "denied", "invalid")


class SupervisedProcess:
    """One child, leader of its own process group, whose output goes to the end of `log`."""

    def __init__(self, command: Sequence[str], *, log: Path, environment: Mapping[str, str], folder: Path):
        log.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.log = log
        libc = ctypes.CDLL(None, use_errno=True) if _ON_LINUX else None
        if libc is not None:
            libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        tag = f"{_TAG}_{uuid.uuid4().hex}"  # a name of its own, for a child may supervise children in its turn
        self._tag = f"{tag}=1".encode()

        def tie_to_parent() -> None:
            if libc is not None:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

        with log.open("ab") as output:
            self._log_start = output.tell()
            self._child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment, tag: "1"},
                cwd=folder,
                process_group=0,  # Ctrl-C on a terminal reaches this process only, which ends the child in order
                preexec_fn=tie_to_parent if libc is not None else None,
            )

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def exit_code(self) -> int | None:
        """The child's exit code, or None while it runs."""
        return self._child.poll()

    def output(self) -> str:
        """All that the child has printed so far."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def last_error(self) -> str:
        """The line of the child's output that most probably says why it ended."""
        lines = [line.strip(_FRAME) for line in _COLOUR.sub("", self.output()).splitlines()]
        lines = [line for line in lines if line and line != "Error"]  # the title of a frame around the text
        telling = [line for line in lines if not line.startswith(_NOISE)]
        marked = [line for line in telling if any(word in line.lower() for word in _TELLING_WORDS)]
        return (marked or telling or lines or ["it printed nothing"])[-1]

    def request_stop(self) -> None:
        """Send SIGTERM to the child's group and return at once; `stop` has to follow."""
        self._send(signal.SIGTERM)

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End the child and all its descendants: SIGTERM first, SIGKILL to what is left after `grace_s` seconds."""
        groups = {self.pid} | {_stat(pid).group for pid in _descendants(self._tag)}
        self._send(signal.SIGTERM)
        deadline_s = time.monotonic() + grace_s
        while (living := _descendants(self._tag)) or self._child.poll() is None:
            groups |= {_stat(pid).group for pid in living}
            if time.monotonic() > deadline_s:
                self._kill(living)
                break
            time.sleep(0.05)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(KILL_WAIT_S)
        _reap(groups, but_not=self.pid)

    def _kill(self, family: set[int]) -> None:
        self._send(signal.SIGKILL)
        for pid in family:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        deadline_s = time.monotonic() + KILL_WAIT_S
        while _descendants(self._tag) and time.monotonic() < deadline_s:
            time.sleep(0.02)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class _Interrupt:
    """Whether an interrupt has to wait, and whether one does."""

    put_off = False
    waiting = False


_interrupt = _Interrupt()


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Within `stoppable`, put an interrupt off to the end of this block: a child that was started must be noted too,
    or nobody would end it. In the main thread only."""
    _interrupt.put_off, _interrupt.waiting = True, False
    try:
        yield
    finally:
        _interrupt.put_off = False
    if _interrupt.waiting:
        _interrupt_now()


@contextlib.contextmanager
def supervised(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str], folder: Path
) -> Iterator[SupervisedProcess]:
    """A child that ends with this block, however that is left: by an interrupt while the child is started, too."""
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
    """Within it SIGTERM does what Ctrl-C does: raise KeyboardInterrupt in the main thread, so that clean-up runs.

    A second signal is ignored, for it would interrupt that clean-up, which has its own time limit.
    """

    def raise_once(number: int, frame: FrameType | None) -> None:
        if not _interrupt.put_off:
            _interrupt_now()
        # Signals are not ignored yet: a child that is being started would inherit that, and could not be told to end.
        _interrupt.waiting = True

    before: dict[signal.Signals, Any] = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    for each in before:
        signal.signal(each, raise_once)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _descendants(tag: bytes) -> set[int]:
    """The process ids of all running processes that carry `tag` in their environment; empty where there is no /proc."""
    found: set[int] = set()
    for entry in _processes():
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            # A process that has ended and waits to be asked for has an empty environment.
            if tag in Path(entry.path, "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    return found


class _Stat(NamedTuple):
    """What /proc/PID/stat begins with; of a process that has gone, an empty state and zeros."""

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
    """Ask for the exit of ended processes of those groups that this process has adopted: they are zombies until then.

    Flower's helpers never ask for their own children's. One that is just ending has children that are not adopted yet,
    hence the short wait. The process `but_not` is this process's own to ask for.
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
    """The folders of all processes; none where there is no /proc."""
    return (entry for entry in os.scandir("/proc") if entry.name.isdigit()) if _ON_LINUX else iter(())
