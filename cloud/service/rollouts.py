"""Changes of the bundle that devices run, as commands make them: at once, in stages, and back."""

import time
from collections.abc import Sequence

from cloud.rollouts.limits import DEFAULT_LIMITS, RolloutLimits
from cloud.rollouts.phases import ACTIVE, RolloutEvent
from cloud.rollouts.stages import Stage
from cloud.store import Store
from cloud.store.registry import RegisteredBundle, Registry
from cloud.store.rollout_devices import reports
from cloud.store.rollouts import begin, command, newest_rollout
from shared.errors import BundleError


class Rollouts:
    """Rollouts of one service; `author` is named in their history."""

    def __init__(self, store: Store, registry: Registry, author: str) -> None:
        self._store, self._registry, self._author = store, registry, author

    async def devices(self, name: str) -> int:
        """Return the number of devices that run bundles of the name."""
        async with self._store.reading() as connection:
            return len(await reports(connection, name))

    async def start(
        self,
        name: str,
        bundle_id: str,
        stages: Sequence[Stage],
        reason: str = "",
        limits: RolloutLimits = DEFAULT_LIMITS,
    ) -> None:
        """Verify a bundle and begin its rollout in stages; raises as `cloud.store.rollouts.begin`, or BundleError."""
        await self._registry.verify(await self._known(name, bundle_id))
        now_s = time.time()
        told = {"author": self._author, "reason": reason}
        await begin(self._store, name, bundle_id, stages, **told, now_s=now_s, limits=limits)

    async def at_once(self, name: str, bundle_id: str) -> None:
        """Make a bundle the current one of its name without stages; raises BundleError."""
        await self._known(name, bundle_id)
        await self._registry.rollout(bundle_id)

    async def act(self, name: str, event: RolloutEvent, reason: str = "") -> None:
        """Pause, resume or take back the rollout that is under way; raises RolloutError."""
        await command(self._store, name, event, author=self._author, reason=reason, now_s=time.time())

    async def back(self, name: str, reason: str = "") -> None:
        """Take back the rollout that is under way; without one return to the previous bundle. Raises BundleError."""
        async with self._store.reading() as connection:
            newest = await newest_rollout(connection, name)
        if newest is not None and newest.phase in ACTIVE:
            await self.act(name, RolloutEvent.BACK, reason)
        else:
            await self._registry.rollback(name)

    async def _known(self, name: str, bundle_id: str) -> RegisteredBundle:
        for entry in await self._registry.versions(name):
            if entry.bundle_id == bundle_id:
                return entry
        raise BundleError(f"{bundle_id!r} is not a bundle named {name!r} in the registry: publish it first.")
