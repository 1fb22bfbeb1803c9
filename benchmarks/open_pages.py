"""Processor time of the console with many open pages of verdicts or review items, each with a stream of changes.

The console runs in a process of its own on a generated store. `cores` is its use of the processor: `idle` while nothing
happens, `busy` while ten samples a second arrive and are judged in the same process. A page does as its script does: it
follows the stream, and after each change it fetches the list again, or the changes of the review items. The pages show
all verdicts; with `review` in the name there are 50 of review items, which the process builds from its new verdicts.
`updates_a_second` are the messages that one page receives beside the clock of each second. While samples arrive, the
measurement begins and ends with an update.

The console before this one was made of NiceGUI pages, each with a web socket and its state in the process. With 50 of
them this program measured 0.008 cores while idle and 0.157 while busy, 0.083 of which the samples took alone.
"""

import asyncio
import json
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.bench.large_store import device_name, make_store
from cloud.bench.large_store_rows import END_S, StoreContents
from cloud.service.review_items import run_review_items
from cloud.store import Store, open_store
from cloud.store.ingest import Received, store_samples
from cloud.store.judging import store_verdicts, waiting_samples
from cloud.store.read_queue import CONSOLE_READS
from cloud.store.registry import Registry
from shared.modality import Modality
from shared.samples import Decision, Route, Sample, Screening, Verdict, new_sample_id
from shared.wire import encode_payload

PAGES, REVIEW_PAGES, SAMPLES_PER_S, VERDICTS = 100, 50, 10, 20_000
SETTLE_S, MEASURE_S = 5.0, 15.0
UPDATE_TIMEOUT_S = 60.0
REVIEW_PAUSE_S = 2.0  # CHANGES_EVERY_MS of the page's script


def run(quick: bool = False) -> dict[str, Any]:
    """Return the use of the processor in cores, with and without pages; `quick`: with three pages while busy only."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_store(folder, StoreContents(1000 if quick else VERDICTS, devices=20, waiting=0))
        if quick:
            return {
                topic: asyncio.run(_measure(folder, 3, SAMPLES_PER_S, 2.0, topic)) for topic in ("verdicts", "review")
            }
        figures: dict[str, Any] = {"pages": PAGES, "samples_per_s_when_busy": SAMPLES_PER_S}
        for state, rate in (("idle", 0), ("busy", SAMPLES_PER_S)):
            figures[f"{state}_without_pages"] = asyncio.run(_measure(folder, 0, rate, MEASURE_S))
            figures[state] = asyncio.run(_measure(folder, PAGES, rate, MEASURE_S))
            figures[f"{state}_review"] = asyncio.run(_measure(folder, REVIEW_PAGES, rate, MEASURE_S, "review"))
        return figures


async def _measure(folder: Path, pages: int, rate: int, measure_s: float, topic: str = "verdicts") -> dict[str, float]:
    """Return the cores in use and the updates that a page receives in a second."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        command = [sys.executable, "-m", __name__, str(folder), str(bound.fileno()), str(rate)]
        with subprocess.Popen(command, pass_fds=[bound.fileno()]) as process:
            try:
                received = [0] * pages  # messages of each page
                readers = [asyncio.create_task(_page(port, received, place, topic)) for place in range(pages)]
                if not pages:
                    await _first_answer(port)
                while not all(received) and not any(reader.done() for reader in readers):
                    await asyncio.sleep(0.1)
                await asyncio.sleep(min(SETTLE_S, measure_s))
                if rate:
                    await _next_update(received)
                before, before_s, count = _cpu_s(process.pid), time.perf_counter(), sum(received)
                await asyncio.sleep(measure_s)
                if rate:
                    await _next_update(received)  # whole intervals between updates, however long a disk delays one
                elapsed_s = time.perf_counter() - before_s
                cores = (_cpu_s(process.pid) - before) / elapsed_s
                ended = [reader.exception() for reader in readers if reader.done()]
                if ended:
                    raise RuntimeError(f"{len(ended)} pages were closed") from ended[0]
                for reader in readers:
                    reader.cancel()
                await asyncio.gather(*readers, return_exceptions=True)
                updates = (sum(received) - count) / elapsed_s / max(pages, 1)
                return {"cores": cores, "updates_a_second": updates}
            finally:
                process.terminate()


async def _next_update(received: list[int]) -> None:
    """Wait until a page shows new samples; on a busy machine they are late. Raises TimeoutError."""
    count = sum(received)
    async with asyncio.timeout(UPDATE_TIMEOUT_S if received else None):
        while received and sum(received) == count:
            await asyncio.sleep(0.1)


async def _first_answer(port: int) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as client:
        return await client.get(f"http://127.0.0.1:{port}/")


async def _page(port: int, received: list[int], place: int, topic: str) -> None:
    """Open the list of a topic, and do as its script does until cancelled: follow the stream, fetch changes."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        page = (await client.get("/verdicts" if topic == "verdicts" else "/?tab=suspicious")).text
        numbers = {followed: _number(page, followed) for followed in ("store", topic)}
        part, pause_s = ("/parts/list", 0.0) if topic == "verdicts" else (_review_changes(page), REVIEW_PAUSE_S)
        fetched_s = -math.inf
        async with client.stream("GET", "/live", params={"topics": ",".join(("figures", *numbers))}) as stream:
            event = ""
            async for line in stream.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    event = value
                    continue
                if name != "data" or event == "clock":
                    continue
                received[place] += 1
                if event == "changed" and (change := json.loads(value))["number"] != numbers[change["topic"]]:
                    numbers[change["topic"]] = change["number"]
                    if change["topic"] == topic and time.monotonic() - fetched_s > pause_s:
                        fetched_s = time.monotonic()
                        (await client.get(part)).raise_for_status()


def _review_changes(page: str) -> str:
    """Return the address of the changes of the items that a page shows."""
    shown = ",".join(
        ":".join(item) for item in re.findall(r'r-row[^>]*data-item="(\d+)"[^>]*data-mark="([^"]*)"', page)
    )
    return f"/parts/review/changes?tab=suspicious&newest={_number(page, 'newest')}&shown={shown}"


def _number(text: str, topic: str) -> int:
    found = re.search(rf'data-{topic}="(\d+)"', text)
    if found is None:
        raise RuntimeError(f"the page has no number of {topic}")
    return int(found[1])


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _serve(folder: Path, bound: socket.socket, rate: int) -> None:
    from cloud.console import create_app

    async with open_store(folder) as store, open_store(folder, CONSOLE_READS) as reads:
        registry = Registry(reads, folder, Ed25519PrivateKey.generate().public_key())
        options = uvicorn.Config(create_app(reads, registry), log_level="error", ws="none", timeout_graceful_shutdown=1)
        tasks = [asyncio.create_task(_write(store, rate)), asyncio.create_task(run_review_items(store, _report))]
        await uvicorn.Server(options).serve(sockets=[bound])
        for task in tasks:
            task.cancel()


def _report(error: Exception) -> None:
    sys.stderr.write(f"review items: {error}\n")


async def _write(store: Store, rate: int) -> None:
    """Store and judge `rate` samples a second."""
    number = 0
    while rate:
        values = np.zeros(3, dtype=np.float32)
        sample = Sample(new_sample_id(), "lab", Modality.TABULAR, time.time(), f"row {number}", values)
        screening = Screening(1.0, 0.01, False, Route.FORWARD, "press-1-00000000", "cal", "int8", None)
        received = Received(sample, screening, encode_payload(values, Modality.TABULAR))
        await store_samples(store, device_name(number % 20), [received], time.time())
        judged = [(waiting, _verdict(waiting.sample_id)) for waiting in await waiting_samples(store, 100)]
        await store_verdicts(store, judged)
        number += 1
        await asyncio.sleep(1 / rate)


def _verdict(sample_id: uuid.UUID) -> Verdict:
    return Verdict(
        sample_id=sample_id,
        decision=Decision.ANOMALOUS,
        p_value=0.001,
        extrapolated=False,
        opinions=(),
        bundle_id="press-1-00000000",
        judged_at_s=END_S + time.monotonic(),  # newer than every generated verdict
    )


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3])))
