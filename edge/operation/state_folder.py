"""Lock of the state folder: one agent each."""

from pathlib import Path

from shared.errors import FileLockedError, SettingsError, StorageError
from shared.file_lock import FileLock


def lock_state(state_dir: Path) -> FileLock:
    """Lock `state_dir` for this process; raises SettingsError if another agent holds it."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        return FileLock(state_dir / "lock")
    except FileLockedError as error:
        raise SettingsError(
            f"{state_dir}: in use by another agent (process {error.holder}). Stop it, or choose another state_dir."
        ) from None
    except OSError as error:
        raise StorageError(f"{state_dir}: cannot be used as state_dir ({error.strerror}). Choose another.") from None
