"""A desk and a runner over an empty store, with a key that signs bundles."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.jobs.desk import TrainingDesk
from cloud.jobs.messages import Inspection
from cloud.jobs.options import JobRequest
from cloud.jobs.runner import TrainingRunner
from cloud.settings import CloudSettings
from cloud.store import open_store
from cloud.store.registry import Registry
from cloud.store.sqlite.store import DATABASE_FILE
from cloud.store.training_jobs import TrainingJob, find_job
from shared.signing_keys import new_signing_key
from tests.cloud.console.filled_store import empty_database

OWNER = "account:ada"


def press_rows(count: int = 240, anomalies: int = 12) -> bytes:
    """A small table of four columns with labels, whose last rows are anomalous."""
    random = np.random.default_rng(1)
    values = random.normal(size=(count, 4))
    values[:, 3] = values[:, 0] + 0.1 * values[:, 3]
    values[count - anomalies :] += 4 * random.normal(size=(anomalies, 4))
    lines = [
        f"{','.join(f'{value:.4f}' for value in row)},{int(index >= count - anomalies)}"
        for index, row in enumerate(values)
    ]
    return "\n".join(["force,flow,heat,speed,label", *lines]).encode()


@dataclass
class Workshop:
    """Desk and runner of one service; `run` lets the runner work while a block runs."""

    desk: TrainingDesk
    runner: TrainingRunner
    failures: list[Exception]

    async def job(self, job_id: str) -> TrainingJob:
        async with self.desk.reading.reading() as connection:
            job = await find_job(connection, job_id)
        assert job is not None
        return job

    async def upload(self, data: bytes = b"", name: str = "press.csv") -> str:
        """Upload a table without an inspection of its own process, which takes seconds; its id."""

        async def body() -> AsyncIterator[bytes]:
            yield data or press_rows()

        facts = await self.desk.new_upload(OWNER)
        await self.desk.uploads.receive(facts, name, body())
        await self.desk.uploads.save_inspection(facts, Inspection(modality="tabular", data=f"files/{name}"))
        return facts.upload_id

    async def start(self, upload_id: str, **options: Any) -> TrainingJob:
        values = {"data": {"upload_id": upload_id}, "options": {"name": "press", "effort": 0.02, **options}}
        job = await self.desk.start(JobRequest.model_validate(values), OWNER, ())
        assert job is not None
        return job

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work) for work in self.runner.tasks().values()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def until(self, job_id: str, reached: Callable[[TrainingJob], bool], timeout_s: float = 120.0) -> TrainingJob:
        async with asyncio.timeout(timeout_s):
            while not reached(job := await self.job(job_id)):
                await asyncio.sleep(0.1)
        return job


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    (tmp_path / DATABASE_FILE).write_bytes(empty_database())
    key = new_signing_key(tmp_path / "signing.pem")
    training = {"signing_key": tmp_path / "signing.pem", "attempts": 2, "free_bytes": 0, "cores": 1}
    settings = CloudSettings.model_validate({"data_dir": tmp_path, "training": training})
    failures: list[Exception] = []
    async with open_store(settings.store, actor="service") as store:
        registry = Registry(store, settings.store, key.public_key())
        yield Workshop(
            TrainingDesk(store, store, registry, settings),
            TrainingRunner(store, registry, settings, failures.append),
            failures,
        )
    assert failures == []
