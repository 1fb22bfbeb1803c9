"""Times of the review page on a generated store: the inbox, a filter, the next item and a decision.

One verdict in 50 of the store is anomalous, and each is an item of its own: a store of a million verdicts has 20,000
items, which nobody has reviewed. The pages come from the console's own application, behind sign-in, over a loopback
connection. The next item is also measured in Chromium, where there is one.
"""

import asyncio
import math
import secrets
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.accounts.requests import SESSION_COOKIE
from cloud.bench.console_browser import missing_browser, next_item_times
from cloud.bench.large_store import device_name, prepare_store
from cloud.bench.large_store_rows import END_S, StoreContents
from cloud.bench.machine import machine
from cloud.console import create_app
from cloud.console.app import LATE_AFTER_S
from cloud.rest import create_api
from cloud.service.people import create_people_app
from cloud.settings import CloudSettings, StoreLocation
from cloud.store import Store, open_store
from cloud.store.labels import Label
from cloud.store.read_queue import CONSOLE_READS
from cloud.store.registry import Registry
from cloud.store.review.builder import build_items
from cloud.store.review.decisions import Decider, NewDecision, decide
from cloud.store.review.item_filter import ItemFilter
from cloud.store.review.items import ItemOrder, item_page
from cloud.store.sessions import NewSession, start_session
from cloud.store.users import add_user, find_user
from cloud.training.progress import StageProgress
from cloud.user_roles import UserRole
from shared.errors import VedetteError

INBOX_MS, FILTER_MS, NEXT_MS = 1000.0, 300.0, 150.0
MIN_DECISIONS = 30  # in the browser
PERSON, DAY_S = "benchmark", 86_400.0
_INBOX = {"inbox": "/", "inbox, suspicious": "/?tab=suspicious"}
_FILTERS = {
    "device": f"device={device_name(7)}",
    "site": "site=default",
    "modality": "modality=image",
    "oddness": "odds=1000",
    "oddest first": "sort=oddest",
    "all items": "state=all",
    "decided": "state=real",
    "time": f"since={END_S - 86_400:.0f}&until={END_S:.0f}",
    "text": "text=part_000123",
    "text without a hit": "text=nothing+has+this+name",
}
_MONTH = f"/parts/review/density?tab=suspicious&begin_s={END_S - 30 * 86_400:.0f}&end_s={END_S:.0f}&step_s=900"


@dataclass(frozen=True, slots=True)
class ConsoleOptions:
    """`verdicts` of the store if it is to be made. `repeats`: calls of each page after the first one."""

    store_url: str
    folder: Path | None
    verdicts: int
    repeats: int
    command: str


def run_console_benchmark(options: ConsoleOptions, progress: StageProgress) -> dict[str, Any]:
    """Return figures and requirements. A folder or database that a benchmark has made is measured as it is."""
    before = machine()
    with tempfile.TemporaryDirectory(prefix="vedette-bench-") as name:
        location = StoreLocation(options.folder or Path(name), options.store_url)
        progress("making the store", 0.0)
        prepare_store(location, StoreContents(options.verdicts))
        progress("building the items", 0.2)
        built_s, items = asyncio.run(_build(location))
        secret = asyncio.run(_sign_in(location))
        with _served(location) as url:
            figures = _measure(url, secret, asyncio.run(_first_items(location)), options.repeats, progress)
            if not (left_out := missing_browser()):
                progress("next item in Chromium", 0.9)
                times_ms = next_item_times(url, secret, max(MIN_DECISIONS, options.repeats) + 1)
                figures["next item in Chromium"] = _summary(times_ms) | {"required_ms": NEXT_MS}
        figures["decision"] = asyncio.run(_decisions(location, options.repeats)) | {"required_ms": NEXT_MS}
    rows = [
        {"page": page, "required_ms": times["required_ms"], "measured_ms": times["median_ms"]}
        | {"met": times["median_ms"] <= times["required_ms"]}
        for page, times in figures.items()
    ]
    return {
        "command": options.command,
        "machine": before,
        "store": "PostgreSQL" if options.store_url else "SQLite",
        "verdicts": options.verdicts,
        "items": items,
        "building_s": built_s,
        "repeats": options.repeats,
        "requirements": rows,
        "figures": figures,
        "left_out": {"next item in Chromium": left_out} if left_out else {},
    }


async def _build(location: StoreLocation) -> tuple[float, int]:
    """Build the items; return the seconds and the number of the newest item."""
    started_s = time.perf_counter()
    async with open_store(location) as store:
        await build_items(store)
        seconds = time.perf_counter() - started_s
        newest = await _items(store, ItemOrder.NEWEST, 1)
    return seconds, newest[0] if newest else 0


async def _sign_in(location: StoreLocation) -> str:
    """Start a session of an operator, and return its secret."""
    secret = secrets.token_urlsafe(32)
    session = NewSession(secret, secrets.token_hex(6), PERSON, "benchmark", "127.0.0.1", "", DAY_S, DAY_S)
    async with open_store(location) as store, store.writing() as connection:
        if await find_user(connection, PERSON) is None:
            await add_user(connection, PERSON, UserRole.OPERATOR, actor="benchmark")
        await start_session(connection, session)
    return secret


async def _first_items(location: StoreLocation) -> list[int]:
    async with open_store(location) as store:
        return await _items(store, ItemOrder.NEWEST, 50)


async def _items(store: Store, order: ItemOrder, size: int) -> list[int]:
    async with store.reading() as connection:
        page = await item_page(connection, ItemFilter(), order, size=size)
    return [item.number for item in page.items]


async def _decisions(location: StoreLocation, repeats: int) -> dict[str, float]:
    """Return the times of decisions on one item each."""
    by = Decider("benchmark", "benchmark")
    async with open_store(location) as store:
        items = await _items(store, ItemOrder.OLDEST, min(repeats + 1, 200))
        times_ms = []
        for item in items:
            started_s = time.perf_counter()
            await decide(store, NewDecision(Label.UNSURE, {item: 0}), by)
            times_ms.append(1000 * (time.perf_counter() - started_s))
    return _summary(times_ms)


def _measure(
    url: str, secret: str, items: list[int], repeats: int, progress: StageProgress
) -> dict[str, dict[str, float]]:
    shown = ",".join(map(str, items))
    pages = {name: (INBOX_MS, [path]) for name, path in _INBOX.items()}
    pages |= {name: (FILTER_MS, [f"/parts/review?tab=suspicious&{query}"]) for name, query in _FILTERS.items()}
    pages["changes of an open page"] = (FILTER_MS, [f"/parts/review/changes?tab=suspicious&shown={shown}"])
    pages["month"] = (FILTER_MS, [_MONTH])
    pages["next item"] = (NEXT_MS, [f"/parts/review/item/{item}" for item in items])
    figures = {}
    with httpx.Client(base_url=url, timeout=60, cookies={SESSION_COOKIE: secret}) as client:
        for place, (name, (required_ms, paths)) in enumerate(pages.items()):
            progress(name, 0.4 + 0.5 * place / len(pages))
            times_ms = [_timed(client, paths[call % len(paths)]) for call in range(repeats + 1)]
            figures[name] = _summary(times_ms) | {"required_ms": required_ms}
    return figures


def _timed(client: httpx.Client, path: str) -> float:
    started_s = time.perf_counter()
    answer = client.get(path)
    if answer.status_code != 200:
        raise VedetteError(f"{path} answered {answer.status_code}: {answer.text[:200]}")
    return 1000 * (time.perf_counter() - started_s)


def _summary(times_ms: list[float]) -> dict[str, float]:
    """Return the times in ms; the p99 of fewer than 100 calls is the longest."""
    first_ms, *rest = times_ms
    ordered = sorted(rest or [first_ms])
    return {
        "first_ms": first_ms,
        "median_ms": statistics.median(ordered),
        "p99_ms": ordered[math.ceil(0.99 * len(ordered)) - 1],
        "longest_ms": ordered[-1],
    }


@contextmanager
def _served(location: StoreLocation) -> Iterator[str]:
    """Serve the console over the store on a free port, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        server = uvicorn.Server(uvicorn.Config("", log_level="warning", ws="none", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=lambda: asyncio.run(_serve(location, server, bound)), daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            thread.join(0.02)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(15)


async def _serve(location: StoreLocation, server: uvicorn.Server, bound: socket.socket) -> None:
    settings = CloudSettings.model_validate({"data_dir": location.data_dir})
    async with open_store(location, CONSOLE_READS) as store, open_store(location) as writing:
        registry = Registry(store, location, Ed25519PrivateKey.generate().public_key())
        console = create_app(store, registry, writing=writing)
        api = create_api(store, writing, late_after_s=LATE_AFTER_S)
        server.config.app = create_people_app(settings, store, writing, api=api, console=console)
        await server.serve(sockets=[bound])
        await console.end_streams()
