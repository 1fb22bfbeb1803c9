"""Folders of training jobs on the disk of the service."""

import contextlib
import os
import secrets
import shutil
from pathlib import Path

UPLOADS, JOBS = "uploads", "jobs"


class JobFolders:
    """Folders below `training.folder`: one for uploads, and one for each job with one for each attempt."""

    def __init__(self, folder: Path) -> None:
        self.uploads, self._jobs = folder / UPLOADS, folder / JOBS

    def job(self, job_id: str) -> Path:
        """Return the folder of a job."""
        return self._jobs / job_id

    def attempt(self, job_id: str, number: int) -> Path:
        """Return a new folder of an attempt; another process never writes there."""
        return self.job(job_id) / f"attempt-{number}-{secrets.token_hex(3)}"

    def remove(self, job_id: str) -> None:
        """Delete the files of a job. Blocking."""
        shutil.rmtree(self.job(job_id), ignore_errors=True)

    def known_jobs(self) -> list[str]:
        """Return the ids of jobs that have files. Blocking."""
        return sorted(path.name for path in self._jobs.iterdir()) if self._jobs.is_dir() else []


def newest_change_s(folder: Path) -> float:
    """Return the time of the newest change of a folder and of everything below it; 0 if it is gone. Blocking."""
    newest_s = 0.0
    for place, _, names in os.walk(folder):
        for path in (place, *(os.path.join(place, name) for name in names)):
            with contextlib.suppress(OSError):
                newest_s = max(newest_s, os.lstat(path).st_mtime)
    return newest_s
