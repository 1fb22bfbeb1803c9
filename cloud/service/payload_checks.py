"""Checks of the payload store for `vedette cloud doctor`: it can be used, and holds what the rows name."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator

from sqlalchemy import select

from cloud.service.checks import FAILED, OK, WARNING, Check
from cloud.store import Store
from cloud.store.objects import Objects
from cloud.store.schema import anomaly_maps, inbox, payloads
from cloud.store.segment_audit import SegmentAudit, SegmentFault, audit_segments
from cloud.words import bytes_words
from shared.errors import StorageError

PROBE_BYTES = 4096
ORPHAN_S = 90_000.0  # the upkeep looks at all segments once a day
_RESTORE = "restore a backup of the payload store, or accept that these samples have lost their payloads and maps"


async def payload_checks(store: Store, *, deep: bool) -> AsyncIterator[Check]:
    """Yield the results; `deep` compares all rows and segments instead of a sample. Raises StorageError."""
    if not store.segments.are_used:
        yield Check("payload store", OK, "payloads and maps are in the database")
        return
    objects = await store.segments.existing()
    if objects is None or not await asyncio.to_thread(objects.exist):
        yield await _without_objects(store)
        return
    yield Check("payload store", OK, await asyncio.to_thread(_probe, objects))
    chance = random.Random()
    audit = await audit_segments(store, everything=deep, chance=chance, orphan_s=ORPHAN_S)
    for check in _findings(audit, objects, deep):
        yield check


async def _without_objects(store: Store) -> Check:
    """Return whether a payload store that is not there is a new one, or one that is not mounted."""
    url = store.segments.url
    async with store.reading() as connection:
        for table in (payloads, anomaly_maps, inbox):
            query = select(table.c.number).where(table.c.segment_id.is_not(None)).limit(1)
            if (await connection.execute(query)).first() is not None:
                advice = "mount the disk, or set payload_store to the right place"
                return Check("payload store", FAILED, f"{url} is not there, and rows name segments in it: {advice}")
    return Check("payload store", OK, f"{url}: nothing was written there yet")


def _probe(objects: Objects) -> str:
    """Write, read and remove an object; return its name and how long that took. Blocking. Raises StorageError."""
    name, data, started_s = f"doctor-{secrets.token_hex(8)}", secrets.token_bytes(PROBE_BYTES), time.perf_counter()
    objects.write(name, data)
    try:
        found = objects.read(name)
    finally:
        objects.remove([name])
    if found != data:
        raise StorageError(f"{objects.url}: {name} had other bytes than were written. Check the disk or the bucket.")
    took_ms = 1000 * (time.perf_counter() - started_s)
    return f"{objects.url}: the probe object {name} was written, read and removed in {took_ms:.0f} ms"


def _findings(audit: SegmentAudit, objects: Objects, deep: bool) -> list[Check]:
    """Return the checks of an audit, each finding with its figure and the next step."""

    def finding(what: str, found: SegmentFault, advice: str, state: str = FAILED) -> Check:
        where = f"the first is {objects.url}/{found.first}"
        return Check("segments", state, f"{what}; {where}: {advice}")

    checks = list[Check]()
    for what, found in (("missing", audit.missing), ("too short", audit.short), ("damaged", audit.damaged)):
        if found.segments:
            text = f"{found.segments} segments with {found.amount} payloads or maps of rows are {what}"
            checks.append(finding(text, found, _RESTORE))
    if audit.unreadable.segments:
        text = f"{audit.unreadable.amount} payloads or maps in {audit.unreadable.segments} segments cannot be read now"
        advice = "check the disk; if a file is beyond repair, remove it, and its payloads count as lost"
        checks.append(finding(text, audit.unreadable, advice))
    orphans = audit.orphans
    if orphans.segments:
        text = f"{orphans.segments} segments with {bytes_words(orphans.amount)} have no row for more than a day"
        advice = "the service removes them daily; check that it runs, and read its log about retention"
        checks.append(finding(text, orphans, advice, WARNING))
    scope = "" if deep else "a sample: "
    left = f"; {audit.dirty} wait to be rewritten without removed devices" if audit.dirty else ""
    more = "" if deep else " (--deep compares all)"
    text = f"{scope}{audit.segments} segments of rows and {audit.folders} folders compared{left}{more}"
    return checks or [Check("segments", OK, text)]
