"""Training jobs on each back end: claimed by one process, taken up again, bounded, cancelled and audited."""

import asyncio

import pytest
from sqlalchemy import update

from cloud.store import open_store, training_jobs
from cloud.store.audit import AuditFilter, audit_page
from cloud.store.schema import training_jobs as table
from cloud.store.training_jobs import JobProgress, JobRefusedError, JobState, NewJob, Order

NEW = NewJob({"upload_id": "ab"}, {"name": "press"})
AT_WORK = JobProgress("fitting", 0.5, 12.0, ((1.0, "begun"),))


async def end_claims(store) -> None:
    """Let the claims run out, as those of a process that was killed."""
    async with store.writing() as connection:
        await connection.execute(update(table).where(table.c.state == "running").values(claim_until_s=0.0))


async def found(store, job_id: str) -> training_jobs.TrainingJob:
    async with store.reading() as connection:
        job = await training_jobs.find_job(connection, job_id)
    assert job is not None
    return job


async def test_a_job_goes_from_the_queue_to_its_result(store):
    made = await training_jobs.add_job(store, NEW, "account:ada")
    assert (made.state, made.attempts) == (JobState.QUEUED, 0)
    job = await training_jobs.claim_next(store, "one", 3)
    assert (job.job_id, job.state, job.attempts) == (made.job_id, JobState.RUNNING, 1)
    assert await training_jobs.renew(store, job.job_id, "one", AT_WORK) is Order.GO_ON
    shown = await found(store, job.job_id)
    assert (shown.stage, shown.share, shown.remaining_s, shown.log) == ("fitting", 0.5, 12.0, ((1.0, "begun"),))
    assert await training_jobs.end_job(store, job.job_id, "one", JobState.DONE, result={"bundle_id": "press-1-ab"})
    done = await found(store, job.job_id)
    assert (done.state, done.result, done.ended_at_s is None) == (JobState.DONE, {"bundle_id": "press-1-ab"}, False)
    assert await training_jobs.claim_next(store, "one", 3) is None
    assert not await training_jobs.end_job(store, job.job_id, "one", JobState.FAILED)  # it is over
    with pytest.raises(JobRefusedError, match="it is done"):
        await training_jobs.cancel_job(store, job.job_id, "account:ada")
    assert (await training_jobs.remove_job(store, job.job_id, "account:ada")).job_id == job.job_id
    async with store.reading() as connection:
        assert await training_jobs.find_job(connection, job.job_id) is None
        entries = await audit_page(connection, AuditFilter(subject=job.job_id))
    assert [(entry.action, entry.actor) for entry in entries] == [
        ("training.removed", "account:ada"),
        ("training.started", "account:ada"),
    ]


async def test_two_claimants_never_have_the_same_job(store, location):
    ids = {(await training_jobs.add_job(store, NEW, "ada")).job_id for _ in range(6)}
    async with open_store(location) as other:
        names = [(each, f"{number}-{turn}") for turn in range(4) for number, each in enumerate((store, other))]
        claimed = await asyncio.gather(*(training_jobs.claim_next(each, name, 3) for each, name in names))
    taken = [job.job_id for job in claimed if job is not None]
    assert len(taken) == 6
    assert set(taken) == ids


async def test_a_job_of_a_killed_process_is_taken_up_again_and_not_for_ever(store):
    made = await training_jobs.add_job(store, NEW, "ada")
    for attempt in (1, 2):
        job = await training_jobs.claim_next(store, f"process {attempt}", 2)
        assert (job.job_id, job.attempts) == (made.job_id, attempt)
        assert await training_jobs.claim_next(store, "another", 2) is None  # while the claim holds
        await end_claims(store)
    assert await training_jobs.renew(store, made.job_id, "process 1", AT_WORK) is Order.LOST
    assert await training_jobs.claim_next(store, "process 3", 2) is None
    failed = await found(store, made.job_id)
    assert failed.state is JobState.FAILED
    assert "begun 2 times without an end" in failed.reason


async def test_a_job_that_is_given_back_waits_and_a_stop_of_the_service_costs_no_attempt(store):
    made = await training_jobs.add_job(store, NEW, "ada")
    for counts, attempts in ((False, 0), (True, 1)):
        assert await training_jobs.claim_next(store, "one", 3) is not None
        assert not await training_jobs.give_back(store, made.job_id, "another", "", counts=counts)
        assert await training_jobs.give_back(store, made.job_id, "one", "the training was killed", counts=counts)
        job = await found(store, made.job_id)
        assert (job.state, job.attempts, job.reason) == (JobState.QUEUED, attempts, "the training was killed")


async def test_a_cancelled_job_ends_at_once_or_is_told_to(store):
    waiting = await training_jobs.add_job(store, NEW, "ada")
    assert (await training_jobs.cancel_job(store, waiting.job_id, "ben")).state is JobState.CANCELLED
    running = await training_jobs.add_job(store, NEW, "ada")
    assert (await training_jobs.claim_next(store, "one", 3)).job_id == running.job_id
    with pytest.raises(JobRefusedError, match="cancel it first"):
        await training_jobs.remove_job(store, running.job_id, "ben")
    assert (await training_jobs.cancel_job(store, running.job_id, "ben")).state is JobState.RUNNING
    assert await training_jobs.renew(store, running.job_id, "one", AT_WORK) is Order.CANCEL
    await end_claims(store)  # the process ends without a word: nobody begins the job again
    assert await training_jobs.claim_next(store, "two", 3) is None
    assert (await found(store, running.job_id)).state is JobState.CANCELLED
    assert await training_jobs.cancel_job(store, "unknown", "ben") is None


async def test_jobs_and_logs_are_bounded_and_accounts_of_sites_see_their_own(store):
    for _ in range(training_jobs.MAX_WAITING - 1):
        await training_jobs.add_job(store, NEW, "ada")
    own = await training_jobs.add_job(store, NewJob({}, {}, ("north",)), "ben")
    with pytest.raises(JobRefusedError, match="largest number"):
        await training_jobs.add_job(store, NEW, "ada")
    async with store.reading() as connection:
        assert [job.job_id for job in await training_jobs.job_page(connection, size=5, sites=("north",))] == [
            own.job_id
        ]
        assert await training_jobs.job_page(connection, sites=("south",)) == []
        newest = await training_jobs.job_page(connection, size=5)
        older = await training_jobs.job_page(connection, size=5, before=newest[-1].number)
    assert len({job.job_id for job in (*newest, *older)}) == 10
    job = await training_jobs.claim_next(store, "one", 3)
    lines = tuple((float(index), "x" * 1000) for index in range(1000))
    await training_jobs.renew(store, job.job_id, "one", JobProgress("s" * 500, 7.0, log=lines))
    shown = await found(store, job.job_id)
    assert (len(shown.log), shown.share, len(shown.stage)) == (training_jobs.MAX_LOG_LINES, 1.0, 64)
    assert shown.log[-1] == (999.0, "x" * training_jobs.MAX_LINE_CHARACTERS)
