"""Readiness of the service: every current bundle is complete, unchanged and signed by a trusted key."""

import asyncio
from collections.abc import Awaitable, Callable

from cloud.serving.cache import load_failure
from cloud.store.registry import Registry
from shared.errors import BundleError, StorageError
from shared.logs import EventLog

CHECK_EVERY_S = 2.0
_LOG = EventLog("service")


class CurrentBundles:
    """Check of the current bundles, repeated when the registry, the keys or a file changes.

    `problems` holds the reason for each current bundle that does not verify, by bundle id. `on_change` is called after
    each change of it.
    """

    def __init__(
        self, registry: Registry, on_change: Callable[[], Awaitable[None]], on_failure: Callable[[Exception], None]
    ) -> None:
        self._registry, self._on_change, self._on_failure = registry, on_change, on_failure
        self._checked: dict[str, tuple[object, str]] = {}  # state of the files and the reason, by bundle id
        self.problems: dict[str, str] = {}

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            try:
                await self.check()
            except StorageError as error:
                self._on_failure(error)
            await asyncio.sleep(CHECK_EVERY_S)

    async def check(self) -> None:
        """Check the current bundles once; files that did not change are not read again. Raises StorageError."""
        checked: dict[str, tuple[object, str]] = {}
        for entry in await self._registry.all_current():
            state = await self._registry.state(entry)
            known = self._checked.get(entry.bundle_id)
            if known is not None and known[0] == state:
                checked[entry.bundle_id] = known
                continue
            reason = ""
            try:
                await self._registry.verify(entry)
            except BundleError as error:
                reason = load_failure(error)
                _LOG.error("current_bundle_does_not_verify", bundle=entry.bundle_id, error=error, advice=reason)
            checked[entry.bundle_id] = (state, reason)
        self._checked = checked
        problems = {bundle_id: reason for bundle_id, (_, reason) in checked.items() if reason}
        if problems != self.problems:
            for bundle_id in self.problems.keys() - problems.keys():
                _LOG.info("current_bundle_verifies", bundle=bundle_id)
            self.problems = problems
            await self._on_change()
