"""Agents to fork, each with one modified part. Imports little, because every fork waits for it."""

import os
import signal
import time
from datetime import datetime, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from shared.bundle import Bundle
from tests.edge.forked import agent


def agent_that_a_bundle_ends(config: Path, bundle_id: str) -> None:
    """As by the kernel, when the graph needs more memory than there is."""
    from edge import pipeline

    load = pipeline.load_screener

    def load_or_end(bundle: Bundle, *more: Any) -> Any:
        if bundle.manifest.bundle_id == bundle_id:
            os.kill(os.getpid(), signal.SIGKILL)
        return load(bundle, *more)

    pipeline.load_screener = load_or_end
    agent(config)


def impatient_agent(config: Path) -> None:
    """One that fetches again after milliseconds."""
    from edge.bundles import installer
    from shared.backoff import Backoff

    installer.Backoff = lambda initial_s, max_s, **_: Backoff(min(initial_s, 0.01), min(max_s, 0.05))
    agent(config)


class _SetClock(datetime):
    """As `datetime`, by the clock of `time.time`."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "_SetClock":
        return cls.fromtimestamp(time.time(), tz)


def agent_by_a_clock_that_is_set(config: Path, ahead: Path) -> None:
    from grpc.aio import _utils

    from edge.uplink import identity, uplink

    true, true_ns = time.time, time.time_ns

    def ahead_s() -> float:
        return float(ahead.read_text() or 0.0)

    time.time = lambda: true() + ahead_s()
    time.time_ns = lambda: true_ns() + int(ahead_s() * 1e9)
    _utils.time = SimpleNamespace(time=true)  # for gRPC's core reads the true clock
    identity.datetime = _SetClock
    uplink.IDENTITY_RETRY_S = uplink.DIAGNOSE_EVERY_S = 0.1
    agent(config)
