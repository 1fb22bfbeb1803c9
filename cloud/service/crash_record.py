"""Files about samples that end the process which judges them; they outlive that process and its service.

Where memory is used up, a container runtime or systemd may kill the service together with its child. The next service
reads these files when it starts.
"""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from cloud.serving.isolation import Suspects, recorded
from shared.errors import FileLockedError, FileNotWrittenError
from shared.file_lock import FileLock
from shared.files import write_durably
from shared.logs import EventLog

FOLDER = "analysis"  # in the data directory
MAX_PROCESSES = 256  # with one data directory
_LOG = EventLog("service")


class CrashRecord:
    """Record of one service process, and the suspects that follow from it.

    Processes with the same data directory take the first number that no other holds, so a process that starts again
    finds the files of one that was killed. Without a writable folder the record is a temporary file.

    Attributes:
        descriptor: File in which the child records samples under way; see `cloud.serving.isolation`.
        suspects: Samples to be judged alone, or not at all.
    """

    def __init__(self, data_dir: Path) -> None:
        self.suspects = Suspects()
        self._suspects_file: Path | None = None
        self._end = contextlib.ExitStack()
        try:
            path = self._end.enter_context(_free_number(data_dir / FOLDER))
            self.descriptor = os.open(path.with_suffix(".record"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            _LOG.warning("crash_record_not_kept", folder=data_dir / FOLDER, reason=error.strerror or str(error))
            self.descriptor, name = tempfile.mkstemp()
            self._end.callback(os.close, self.descriptor)
            os.unlink(name)
            return
        self._end.callback(os.close, self.descriptor)
        self._end.callback(os.ftruncate, self.descriptor, 0)
        self._suspects_file = path.with_suffix(".json")
        with contextlib.suppress(OSError, ValidationError):  # none yet, or damaged: the next ends say the same again
            self.suspects = Suspects.model_validate_json(self._suspects_file.read_bytes())
        if killed := recorded(self.descriptor):
            self._note(killed)

    def note_end(self) -> None:
        """Take the samples that the child had under way when it ended."""
        self._note(recorded(self.descriptor))

    def close(self) -> None:
        """Forget what the child had under way, because it was ended in order; a second call does nothing."""
        self._end.close()

    def _note(self, under_way: set[uuid.UUID]) -> None:
        self.suspects.note_end(under_way)
        os.ftruncate(self.descriptor, 0)
        if self._suspects_file is None:
            return
        try:
            write_durably(self._suspects_file, self.suspects.model_dump_json().encode(), 0o600)
        except FileNotWrittenError as error:  # this process knows them nevertheless
            _LOG.warning("suspects_not_written", error=error)


@contextlib.contextmanager
def _free_number(folder: Path) -> Iterator[Path]:
    """Hold the lock file of the first number that no other process holds. Raises OSError if none can be taken."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for number in range(MAX_PROCESSES):
        path = folder / f"{number}.lock"
        with contextlib.suppress(FileLockedError), FileLock(path):
            yield path
            return
    raise OSError(f"all {MAX_PROCESSES} numbers are taken")
