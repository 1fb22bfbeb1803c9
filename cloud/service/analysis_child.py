"""Analysis process: judges waiting samples for the service that started it, until the link to it ends.

Started by `cloud.service.analysis_process` with its process id and two file descriptors as arguments: the link, and
the record of samples under way.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.service.analysis_link import (
    ALIVE_S,
    MAX_UNSENT_BYTES,
    AnalysisLink,
    AnalysisStart,
    doubles_report,
    judged_reports,
)
from cloud.service.analysis_part import AnalysisPart
from cloud.service.analysis_port import AnalysisListener, JudgedSamples
from cloud.service.load_analysis import loader
from cloud.serving.isolation import Isolation
from cloud.serving.switch_interval import shorten_switch_interval
from cloud.store import Store, open_store
from cloud.store.audit import SERVICE_ACTOR
from cloud.store.inbox_request import Doubles
from cloud.store.registry import Registry
from shared.errors import StorageError
from shared.garbage import skip_loaded_objects
from shared.logs import EventLog, configure
from shared.parent_process import end_before_others, end_with_parent
from shared.tracing import SampleSpans
from vedette.v1 import analysis_pb2

MAX_TEXT = 2000  # characters of an error in a report
END_S = 1.5
NICENESS = 5  # where all cores are busy, acknowledgements and pages come before verdicts
_LIKELINESS = 300  # of 1000, to be ended when memory is used up
_LOG = EventLog("analysis")


class AnalysisChild:
    """Analysis part of this process, and its reports to the service."""

    def __init__(self, link: AnalysisLink, start: AnalysisStart, store: Store, isolation: Isolation) -> None:
        self._link = link
        self._ended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        trusted_key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(start.trusted_key))
        endpoint = start.tracing_endpoint
        self._spans = SampleSpans(endpoint, "vedette-cloud") if endpoint else None
        listener = AnalysisListener(
            on_judged=self._on_judged,
            on_doubles=self._on_doubles,
            on_failure=self._on_failure,
            on_readiness=self._on_readiness,
            on_lost=self._on_readiness,
            takes_events=start.takes_events,
        )
        self._part = AnalysisPart(
            store,
            Registry(store, start.location, trusted_key),
            start.settings,
            start.location,
            listener,
            load_analysis=loader(start.settings),
            spans=self._spans,
            isolation=isolation,
        )

    async def run(self) -> int:
        """Judge until the link ends; return the exit code."""
        parts = {"commands": self._obey(), "alive": self._report_alive(), **self._part.tasks()}
        self._tasks = [asyncio.create_task(self._guarded(name, part)) for name, part in parts.items()]
        try:
            await self._ended.wait()
        finally:
            failed = any(task.done() and not task.cancelled() and task.exception() for task in self._tasks)
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=END_S)
        self._part.stop()
        if self._spans is not None:
            self._spans.close()
        return int(failed)

    async def _guarded(self, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except Exception as error:
            _LOG.error("part_ended", part=name, error=error)
            self._ended.set()
            raise

    async def _obey(self) -> None:
        """Follow the commands of the service until it has ended, or wants the end."""
        while (data := await self._link.receive()) is not None:
            command = analysis_pb2.AnalysisCommand.FromString(data)
            if command.wake:
                self._part.wake()
            elif command.metrics:
                self._link.send(analysis_pb2.AnalysisReport(metrics=await self._part.metrics_page()))
        self._ended.set()

    async def _report_alive(self) -> None:
        await self._on_readiness()
        while True:
            self._link.send(analysis_pb2.AnalysisReport(alive=True, busy_s=self._part.busy_s))
            await asyncio.sleep(ALIVE_S)

    def _on_judged(self, judged: JudgedSamples) -> None:
        has_room = self._link.unsent_bytes < MAX_UNSENT_BYTES
        for report in judged_reports(judged, with_events=has_room):
            self._link.send(report)

    def _on_doubles(self, doubles: Sequence[Doubles]) -> None:
        self._link.send(doubles_report(doubles))

    def _on_failure(self, error: Exception) -> None:
        text = str(error) if isinstance(error, StorageError) else f"{type(error).__name__}: {error}"
        failure = analysis_pb2.AnalysisFailure(text=text[:MAX_TEXT], is_storage=isinstance(error, StorageError))
        self._link.send(analysis_pb2.AnalysisReport(failure=failure))

    async def _on_readiness(self) -> None:
        self._link.send(analysis_pb2.AnalysisReport(problem=self._part.problem[:MAX_TEXT]))


async def _run(end: socket.socket, record: int) -> int:
    link = await AnalysisLink.over(end)
    if (data := await link.receive()) is None:
        return 0
    command = analysis_pb2.AnalysisCommand.FromString(data)
    start = AnalysisStart.model_validate_json(command.start)
    async with open_store(start.location, actor=SERVICE_ACTOR, claimant=start.claimant) as store:
        isolation = Isolation(record, start.alone, frozenset(start.condemned))
        child = AnalysisChild(link, start, store, isolation)
        skip_loaded_objects()
        return await child.run()


def main() -> None:
    """Run until the service ends the link."""
    end_with_parent(int(sys.argv[1]))
    end_before_others(_LIKELINESS)
    os.nice(NICENESS)
    shorten_switch_interval()
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the service too, which ends this process in order
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which children would inherit
    configure(libraries=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_run(socket.socket(fileno=int(sys.argv[2])), record=int(sys.argv[3])))
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # unloading PyTorch takes long, and a running calculation cannot be interrupted


if __name__ == "__main__":
    main()
