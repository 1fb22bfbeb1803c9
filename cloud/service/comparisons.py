"""Comparisons follow one another, each judged by a process of its own; one that ends early is started again."""

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.analysis_settings import AnalysisSettings
from cloud.comparison.child import ComparisonStart
from cloud.settings import StoreLocation
from cloud.store import Store
from cloud.store.comparisons import Comparison, claim, renew
from shared.errors import StorageError
from shared.logs import EventLog

LOOK_S, RENEW_S = 2.0, 2.0
_LOG = EventLog("comparison")


class ComparisonRunner:
    """Owner of the process that judges a comparison.

    `live_first`: live samples come first, because this process or another one judges them.
    """

    def __init__(
        self,
        store: Store,
        settings: AnalysisSettings,
        location: StoreLocation,
        trusted_key: Ed25519PublicKey,
        on_failure: Callable[[Exception], None],
        *,
        live_first: bool = True,
    ) -> None:
        self._store, self._settings, self._location = store, settings, location
        self._key, self._on_failure = trusted_key.public_bytes_raw().hex(), on_failure
        self._live_first, self._runner = live_first, str(uuid.uuid4())
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the process that judges; None while there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    async def run(self, number: int | None = None) -> None:
        """Judge one comparison after another until cancelled; if `number` is given, only that one."""
        while True:
            try:
                found = await claim(self._store, self._runner, time.time(), number)
                if found is not None:
                    await self._judge(found)
            except (StorageError, OSError) as error:
                self._on_failure(error)
            await asyncio.sleep(LOOK_S)

    async def _judge(self, comparison: Comparison) -> None:
        """Run the process of a comparison to its end; it ends at once after a cancellation."""
        start = ComparisonStart(
            parent_pid=os.getpid(),
            number=comparison.number,
            runner=self._runner,
            settings=self._settings,
            location=self._location,
            trusted_key=self._key,
            live_first=self._live_first,
        )
        _LOG.info("comparison_begins", number=comparison.number, attempt=comparison.attempts)
        command = [sys.executable, "-P", "-m", "cloud.comparison.child"]
        # Started from the main thread, whose end the kernel reports to it.
        process = self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            assert process.stdin is not None
            process.stdin.write(start.model_dump_json().encode())
            process.stdin.close()
            while process.poll() is None:
                if not await renew(self._store, comparison.number, self._runner):
                    break
                await asyncio.sleep(RENEW_S)
        finally:
            if process.poll() is None:
                process.kill()
            code = await asyncio.to_thread(process.wait)
        if code:
            _LOG.warning("comparison_process_ended", number=comparison.number, code=code)
