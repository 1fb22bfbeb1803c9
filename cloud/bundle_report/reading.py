"""Reading of the reports on bundles: manifest, fusion, calibrations, audit log and heartbeats.

No score is computed again.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Collection

from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.bundle_report.figures import BundleReport, GroupRuns
from cloud.bundle_report.inside import Inside, closed, read_inside
from cloud.bundle_report.making import make_report
from cloud.store.audit import AuditAction, AuditFilter, audit_page
from cloud.store.bundle_devices import running_counts
from cloud.store.bundle_queries import ListedBundle, one_bundle
from cloud.store.engine import Store
from cloud.store.registry import Registry
from shared.bundle import Manifest
from shared.errors import VedetteError
from shared.signing_keys import key_id

KEPT = 16
FAILURE_TTL_S = 30.0  # of an archive that cannot be read, unless its files or the trusted keys change before


class BundleReports:
    """Reports on the bundles of a registry.

    Facts of the bundles opened last stay in memory, and one is opened at a time. A device without a heartbeat for
    `late_after_s` seconds does not report.
    """

    def __init__(self, store: Store, registry: Registry | None, late_after_s: float) -> None:
        self._store, self._registry, self._late_after_s = store, registry, late_after_s
        self._known: OrderedDict[tuple[object, ...], tuple[Inside, float]] = OrderedDict()
        self._turn = asyncio.Lock()

    async def report(self, bundle_id: str, now_s: float, sites: Collection[str] = ()) -> BundleReport | None:
        """Return the report on a bundle, None for an unknown one; of devices those of these sites count."""
        async with self._store.reading() as connection:
            found = await one_bundle(connection, bundle_id)
            if found is None:
                return None
            listed, values = found
            alive_since_s = now_s - self._late_after_s
            counts = await running_counts(connection, bundle_id, alive_since_s=alive_since_s, sites=sites)
            published_by = await _published_by(connection, bundle_id)
        manifest = Manifest.model_validate(values)
        inside = await self._inside(listed, manifest)
        runs = tuple(GroupRuns(**{name: getattr(item, name) for name in GroupRuns.model_fields}) for item in counts)
        return make_report(listed, manifest, inside, runs, published_by)

    async def _inside(self, listed: ListedBundle, manifest: Manifest) -> Inside:
        if self._registry is None:
            return closed(manifest, "This process has no registry.")
        try:
            key = (listed.entry.bundle_id, await self._registry.state(listed.entry))
        except VedetteError as error:
            return _unreadable(manifest, error)
        if (known := self._kept(key)) is not None:
            return known
        async with self._turn:
            if (known := self._kept(key)) is not None:  # another page has read it meanwhile
                return known
            inside, valid_s = await self._read(self._registry, listed.entry.bundle_id, manifest)
            self._known[key] = (inside, time.monotonic() + valid_s)
            self._known.move_to_end(key)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
            return inside

    def _kept(self, key: tuple[object, ...]) -> Inside | None:
        """Return the facts that are kept under a key and still valid."""
        inside, until_s = self._known.get(key, (None, 0.0))
        if inside is None or time.monotonic() > until_s:
            return None
        self._known.move_to_end(key)
        return inside

    async def _read(self, registry: Registry, bundle_id: str, manifest: Manifest) -> tuple[Inside, float]:
        """Return the facts of an archive, and how many seconds they are valid; those of a failure end soon."""
        try:
            bundle = await registry.bundle(bundle_id)
            signer = bundle.signer(await registry.key_chain.keys())
            inside = await asyncio.to_thread(read_inside, bundle, key_id(signer) if signer is not None else "")
        except (VedetteError, ValueError, KeyError) as error:
            return _unreadable(manifest, error), FAILURE_TTL_S
        return inside, math.inf


def _unreadable(manifest: Manifest, error: Exception) -> Inside:
    reason = str(error) if isinstance(error, VedetteError) else "its files are damaged"
    return closed(manifest, f"The archive cannot be read: {reason}")


async def _published_by(connection: AsyncConnection, bundle_id: str) -> str:
    """Return who published a bundle first; empty if the audit log does not say."""
    wanted = AuditFilter(action=AuditAction.BUNDLE_PUBLISHED.value, subject=bundle_id)
    entries = await audit_page(connection, wanted, size=50)
    return entries[-1].actor if entries else ""
