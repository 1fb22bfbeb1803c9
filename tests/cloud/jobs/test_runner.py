"""Jobs in real child processes: refused data, cancelled, killed, given back, and cleaned up."""

import asyncio
import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
from sqlalchemy import update

from cloud.jobs.options import JobRequest
from cloud.store.schema import training_jobs
from cloud.store.training_jobs import JobRefusedError, JobState, TrainingJob, cancel_job
from tests.cloud.jobs.conftest import OWNER, Workshop, press_rows


def training_pids(job: TrainingJob) -> list[int]:
    """Processes that train this job."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"{job.job_id}/attempt".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


async def begun(workshop: Workshop, job: TrainingJob, attempt: int = 1) -> int:
    """Wait until an attempt has its process; its id."""
    async with asyncio.timeout(30):
        while (await workshop.job(job.job_id)).attempts < attempt or not (pids := training_pids(job)):
            await asyncio.sleep(0.02)
    return pids[0]


async def test_data_that_cannot_be_trained_on_fails_with_the_reason_and_without_paths(workshop: Workshop) -> None:
    job = await workshop.start(await workshop.upload(press_rows(50, 20)), name="few")
    async with workshop.run():
        failed = await workshop.until(job.job_id, lambda job: job.state.is_over)
    assert (failed.state, failed.attempts) == (JobState.FAILED, 1), "another attempt would not change it"
    assert failed.reason.startswith("press.csv: 30 normal rows, and at least 40 are needed")
    assert str(workshop.desk.settings.data_dir) not in str(failed)
    assert [text for _, text in failed.log][:1] == ["attempt 1 of 2 begins"]


async def test_a_cancelled_job_ends_within_seconds_with_its_process_that_had_no_secret(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VEDETTE_STORE_URL", "postgresql://vedette:s3cret@db/vedette")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    job = await workshop.start(await workshop.upload())
    async with workshop.run():
        pid = await begun(workshop, job)
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"PATH=" in environment
        assert b"VEDETTE_" not in environment
        assert b"s3cret" not in environment
        start = Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[4].decode())
        assert json.loads(start.read_bytes())["location"] is None, "files of an upload need no store"
        began_s = time.monotonic()
        await cancel_job(workshop.desk.writing, job.job_id, OWNER)
        cancelled = await workshop.until(job.job_id, lambda job: job.state.is_over, 10.0)
    assert cancelled.state is JobState.CANCELLED
    assert time.monotonic() - began_s < 5
    assert not Path(f"/proc/{pid}").exists()
    assert await workshop.desk.remove(job.job_id, OWNER)
    assert workshop.desk.folders.known_jobs() == []
    assert await workshop.desk.uploads.known() == []


async def test_a_job_whose_process_is_killed_again_and_again_fails_after_its_attempts(workshop: Workshop) -> None:
    job = await workshop.start(await workshop.upload())
    async with workshop.run():
        for attempt in (1, 2):
            os.kill(await begun(workshop, job, attempt), signal.SIGKILL)
        failed = await workshop.until(job.job_id, lambda job: job.state.is_over)
    assert failed.state is JobState.FAILED
    assert "begun 2 times without an end" in failed.reason
    assert "was ended by signal 9" in failed.reason
    assert [text for _, text in failed.log].count("attempt 2 of 2 begins") == 1


async def test_the_end_of_the_service_gives_the_job_back_and_a_large_one_fails_at_once(workshop: Workshop) -> None:
    job = await workshop.start(await workshop.upload())
    async with workshop.run():
        pid = await begun(workshop, job)
    waiting = await workshop.job(job.job_id)
    assert (waiting.state, waiting.attempts) == (JobState.QUEUED, 0)
    assert not Path(f"/proc/{pid}").exists()
    training = workshop.desk.settings.training
    object.__setattr__(training, "memory_bytes", 2**20)
    async with workshop.run():
        failed = await workshop.until(job.job_id, lambda job: job.state.is_over, 20.0)
    assert (failed.state, failed.attempts) == (JobState.FAILED, 1)
    assert "needed more memory than" in failed.reason


async def test_old_jobs_go_with_their_files_and_what_belongs_to_none(workshop: Workshop) -> None:
    job = await workshop.start(await workshop.upload())
    await cancel_job(workshop.desk.writing, job.job_id, OWNER)
    folders = workshop.desk.folders
    for name in (job.job_id, "stray"):
        folders.attempt(name, 1).mkdir(parents=True)
    (attempt,) = folders.job("stray").iterdir()
    written = attempt / "bundle.vedette"
    written.touch()
    for path in (attempt, folders.job("stray")):
        os.utime(path, (1, 1))
    await workshop.runner.clean()
    assert folders.known_jobs() == sorted([job.job_id, "stray"]), "a file in it is new"
    os.utime(written, (1, 1))
    await workshop.runner.clean()
    assert folders.known_jobs() == [job.job_id]
    async with workshop.desk.writing.writing() as connection:
        await connection.execute(update(training_jobs).values(ended_at_s=1.0))
    await workshop.runner.clean()
    assert folders.known_jobs() == []


async def test_a_job_starts_only_with_what_it_needs(workshop: Workshop) -> None:
    request = JobRequest.model_validate({"data": {"upload_id": "0" * 16}, "options": {"name": "press"}})
    assert await workshop.desk.start(request, OWNER, ()) is None
    upload_id = await workshop.upload()
    request = JobRequest.model_validate({"data": {"upload_id": upload_id}, "options": {"name": "press"}})
    assert await workshop.desk.start(request, "account:ben", ()) is None, "another's upload"
    facts = await workshop.desk.uploads.find(upload_id, OWNER)
    assert facts is not None
    await workshop.desk.uploads.save_inspection(facts, facts.inspection.model_copy(update={"problem": "Too few rows."}))
    with pytest.raises(JobRefusedError, match="Too few rows"):
        await workshop.desk.start(request, OWNER, ())
    key = workshop.desk.settings.training.signing_key
    key.unlink()
    with pytest.raises(JobRefusedError, match="no key that signs trained bundles"):
        await workshop.desk.start(request, OWNER, ())
