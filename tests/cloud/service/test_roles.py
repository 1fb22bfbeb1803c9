"""Roles: ingest and analysis in processes of their own, over one PostgreSQL store."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from sqlalchemy import func, select

from cloud.service.roles import Role
from cloud.serving.isolation import ENDS_PROCESS
from cloud.store.judging import waiting_samples
from cloud.store.registry import publish_to
from cloud.store.schema import claims
from shared.errors import FileLockedError
from shared.file_lock import FileLock
from tests.cloud.service.harness import message, running, settings_for
from tests.cloud.service.served import VEDETTE, call, write_settings
from vedette.v1 import sample_pb2


@pytest.fixture
async def ingest(tmp_path, biopsies, postgres_url):
    """An ingest process in this one, with a published bundle and nobody who judges."""
    settings = settings_for(tmp_path, store_url=postgres_url, metrics_listen="127.0.0.1:0")
    async with running(settings, biopsies.key, role=Role.INGEST) as result:
        await publish_to(settings.store, biopsies.bundle, biopsies.key.public_key())
        yield result


@contextlib.contextmanager
def analysis(folder, key, url: str, *, batch_s: float, claim_s: float):
    """A process that judges, without PyTorch; killed at the end of the block."""
    config = write_settings(folder, key, store_url=url, metrics_listen="127.0.0.1:0")
    command = [sys.executable, "-m", "tests.cloud.service.analysis_process", config, str(batch_s), str(claim_s)]
    with (folder / "analysis.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


ENDING = """
import os, signal, sys
if "cloud.service.analysis_child" in sys.orig_argv:
    import cloud.store.engine
    cloud.store.engine.CLAIM_S = 2.0
    from cloud.serving import verdicts
    plain = verdicts.decode_batch
    def decode_batch(pairs):
        if any(waiting.sample_id.hex == "SAMPLE" for waiting, _ in pairs):
            for pid in PROCESSES:
                os.kill(pid, signal.SIGKILL)
        return plain(pairs)
    verdicts.decode_batch = decode_batch
elif "analysis" in sys.orig_argv:
    import cloud.store.engine
    cloud.store.engine.CLAIM_S = 2.0
"""


@contextlib.contextmanager
def kept_running(command: list, log):
    """A process that is started again when it ends, as systemd does it; yields the number of its ends."""
    ends, ended, processes = [], threading.Event(), []

    def keep() -> None:
        while not ended.is_set():
            with log.open("ab") as file:
                processes.append(subprocess.Popen(command, stdout=file, stderr=file))
            ends.append(processes[-1].wait())

    keeping = threading.Thread(target=keep)
    keeping.start()
    try:
        yield ends
    finally:
        ended.set()
        processes[-1].terminate()
        keeping.join()


@pytest.mark.long
@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("processes", "ends"), [("[os.getpid()]", 0), ("[os.getppid(), os.getpid()]", 3)])
async def test_a_sample_that_ends_the_analysis_role_is_undecided_and_the_others_are_judged(
    ingest, tmp_path, biopsies, postgres_url, monkeypatch, processes, ends
):
    """It ends the child, or, as where a container's memory is used up, the child together with its service."""
    sent = [message(values) for values in biopsies.normal[:12]]
    faulty = sent[5].sample_id
    ending = ENDING.replace("SAMPLE", faulty.hex()).replace("PROCESSES", processes)
    (tmp_path / "sitecustomize.py").write_text(ending)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    device = await ingest.device()
    watching = asyncio.create_task(device.verdicts(len(sent), timeout_s=180))
    await device.submit(sent)
    folder = tmp_path / "analysis"
    folder.mkdir()
    config = write_settings(
        folder, biopsies.key, store_url=postgres_url, data_dir=str(tmp_path / "data"), metrics_listen="127.0.0.1:0"
    )
    command = [VEDETTE, "cloud", "serve", "--role", "analysis", "--config", config]
    with kept_running(command, folder / "log") as found:
        verdicts = await watching
        assert found == [-signal.SIGKILL] * ends
    undecided = [key for key, verdict in verdicts.items() if verdict.decision == sample_pb2.DECISION_UNDECIDED]
    assert verdicts.keys() == {sample.sample_id for sample in sent}
    assert undecided == [faulty]
    assert verdicts[faulty].reason == ENDS_PROCESS


async def number_of_claims(store) -> int:
    async with store.reading() as connection:
        return (await connection.execute(select(func.count()).select_from(claims))).scalar_one()


async def test_the_samples_of_a_killed_analysis_process_get_one_verdict_of_another(
    ingest, tmp_path, biopsies, postgres_url
):
    device = await ingest.device()
    watching = asyncio.create_task(device.verdicts(20, timeout_s=60))
    sent = [message(values) for values in biopsies.normal[:20]]
    await device.submit(sent)
    with analysis(tmp_path, biopsies.key, postgres_url, batch_s=60, claim_s=2):
        async with asyncio.timeout(30):
            while await number_of_claims(ingest.service.store) < len(sent):  # then the process is killed
                await asyncio.sleep(0.1)
    with analysis(tmp_path, biopsies.key, postgres_url, batch_s=0, claim_s=2):
        verdicts = await watching
    assert verdicts.keys() == {sample.sample_id for sample in sent}
    assert len(await device.events(100, timeout_s=1)) == 1 + len(sent)  # and the published bundle


async def test_an_analysis_process_that_ends_leaves_its_samples_to_others_at_once(
    ingest, tmp_path, biopsies, postgres_url
):
    device = await ingest.device()
    sent = [message(values) for values in biopsies.normal[:20]]
    await device.submit(sent)
    store = ingest.service.store
    with analysis(tmp_path, biopsies.key, postgres_url, batch_s=60, claim_s=600) as process:
        async with asyncio.timeout(30):
            while await number_of_claims(store) < len(sent):
                await asyncio.sleep(0.1)
        assert await waiting_samples(store, 100) == []
        process.terminate()
        assert await asyncio.to_thread(process.wait, 10) == 0
    assert len(await waiting_samples(store, 100)) == len(sent)


async def test_an_ingest_process_shows_metrics_and_health_and_no_console(ingest):
    url = f"http://{ingest.service.addresses.console_address}"

    def get(path: str) -> str:
        with urllib.request.urlopen(url + path, timeout=10) as answer:
            return answer.read().decode()

    assert json.loads(await asyncio.to_thread(get, "/health"))["role"] == "ingest"
    assert 'vedette_process_info{role="ingest"} 1.0' in await asyncio.to_thread(get, "/metrics")
    for path in ("/", "/api/v1/verdicts", "/api/devices"):
        with pytest.raises(urllib.error.HTTPError) as missing:
            await asyncio.to_thread(get, path)
        assert missing.value.code == 404


def test_a_role_on_sqlite_is_refused_in_one_line(tmp_path, biopsies):
    done = call("serve", "--role", "ingest", "--config", write_settings(tmp_path, biopsies.key))
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "set store_url to a PostgreSQL database" in done.stderr


def test_processes_of_roles_share_the_data_directory_and_one_for_all_does_not(tmp_path):
    first, second = (FileLock(tmp_path / "lock", shared=True) for _ in range(2))
    with first, second, pytest.raises(FileLockedError):
        FileLock(tmp_path / "lock")
    with FileLock(tmp_path / "lock"), pytest.raises(FileLockedError):
        FileLock(tmp_path / "lock", shared=True)
