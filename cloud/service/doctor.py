"""Checks of a service's parts, for `vedette cloud doctor`."""

import asyncio
import datetime as dt
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.service.authority import PKI_FOLDER
from cloud.service.checks import FAILED, OK, WARNING, Check
from cloud.service.payload_checks import payload_checks
from cloud.service.trusted_key import trusted_key_for_command
from cloud.settings import CloudSettings
from cloud.store import Store, open_store
from cloud.store.inbox import inbox_backlog, oldest_arrival
from cloud.store.migrate import newest_revision
from cloud.store.probe import try_write
from cloud.store.registry import Registry
from cloud.store.schema import devices, heartbeats
from shared.errors import VedetteError
from shared.signing_keys import key_id

LITTLE_DISK_BYTES, NO_DISK_BYTES = 2**30, 2**26
CLOCK_OFF_S = 2.0
DEVICE_CLOCK_OFF_S = 60.0
EXPIRES_SOON_DAYS = 90
OLD_REQUEST_S = 600.0
SHOWN_NAMES = 5


def examine(settings: CloudSettings, *, deep: bool = False) -> list[Check]:
    """Return the results of all checks; a probe object in the payload store is written and removed, nothing else.

    `deep` compares all rows with the payload store, not a sample of them.
    """
    checks = asyncio.run(_of_store(settings, deep))
    return [*checks, *_authority(settings.data_dir / PKI_FOLDER), _disk(settings.data_dir)]


async def _of_store(settings: CloudSettings, deep: bool) -> list[Check]:
    checks: list[Check] = []
    async with open_store(settings.store) as store:
        parts: tuple[tuple[str, Callable[[], AsyncIterator[Check]]], ...] = (
            ("store", lambda: _store(store, settings)),
            ("keys", lambda: _signatures(store, settings)),
            ("device clocks", lambda: _device_clocks(store)),
            ("payload store", lambda: payload_checks(store, deep=deep)),
        )
        for name, part in parts:
            try:
                checks += [check async for check in part()]
            except VedetteError as error:
                checks.append(Check(name, FAILED, str(error)))
    return checks


async def _store(store: Store, settings: CloudSettings) -> AsyncIterator[Check]:
    async with store.reading() as connection:
        revision = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one()
        newest = newest_revision()
        if revision == newest:
            yield Check("store", OK, f"{settings.store} at revision {revision}")
        else:
            detail = f"{settings.store} is at revision {revision}, not {newest}: run vedette cloud migrate"
            yield Check("store", FAILED, detail)
        if settings.store_url:
            yield await _server(connection)
            yield await _server_clock(connection)
        if revision == newest:
            yield await _inbox(connection)
    await try_write(store)
    yield Check("writing", OK, "the store takes samples")


async def _inbox(connection: AsyncConnection) -> Check:
    """Check that some process takes the requests out of the inbox."""
    waiting = sum(count for _, count, _ in await inbox_backlog(connection))
    since_s = await oldest_arrival(connection)
    if since_s is None:
        return Check("inbox", OK, "no request waits to be unpacked")
    age_s = max(0.0, time.time() - since_s)
    detail = f"{waiting} samples wait to be unpacked, the first for {age_s:.0f} s"
    if age_s < OLD_REQUEST_S:
        return Check("inbox", OK, detail)
    return Check("inbox", WARNING, f"{detail}: check that an analysis process runs, and its log")


async def _server(connection: AsyncConnection) -> Check:
    found = {}
    for name in ("server_version", "fsync", "full_page_writes"):
        found[name] = (await connection.execute(text(f"SHOW {name}"))).scalar_one()
    unsafe = [name for name in ("fsync", "full_page_writes") if found[name] != "on"]
    if unsafe:
        detail = f"{' and '.join(unsafe)} off: acknowledged samples can be lost in a power cut. Switch it on."
        return Check("server", WARNING, detail)
    return Check("server", OK, f"PostgreSQL {found['server_version']}")


async def _server_clock(connection: AsyncConnection) -> Check:
    before_s = time.time()
    server_s = float((await connection.execute(text("SELECT extract(epoch FROM clock_timestamp())"))).scalar_one())
    offset_s = server_s - (before_s + time.time()) / 2
    state = OK if abs(offset_s) <= CLOCK_OFF_S else WARNING
    advice = "" if state == OK else ": set both clocks by NTP"
    return Check("clock", state, f"the server's clock is {offset_s:+.3f} s from this machine's{advice}")


async def _signatures(store: Store, settings: CloudSettings) -> AsyncIterator[Check]:
    """Check bundles and keys; raises CertificateError if there is no key to check them with, and makes none."""
    key = trusted_key_for_command(settings)
    registry = Registry(store, settings.store, key)
    for name, part in (("bundles", _bundles(registry)), ("keys", _keys(registry, key))):
        try:
            async for check in part:
                yield check
        except VedetteError as error:
            yield Check(name, FAILED, str(error))


async def _bundles(registry: Registry) -> AsyncIterator[Check]:
    current = await registry.all_current()
    for entry in current:
        try:
            await registry.verify(entry)
            yield Check("bundle", OK, entry.bundle_id)
        except VedetteError as error:
            yield Check("bundle", FAILED, str(error))
    if not current:
        yield Check("bundle", WARNING, "no bundle is current: publish one with vedette cloud publish")


async def _keys(registry: Registry, first_key: Ed25519PublicKey) -> AsyncIterator[Check]:
    trusted = [key_id(key) for key in await registry.key_chain.keys()]
    configured = key_id(first_key)
    if configured in trusted:
        yield Check("keys", OK, f"trusted: {', '.join(trusted)}")
    else:
        yield Check("keys", WARNING, f"bundle_key {configured} is not trusted any more; trusted: {', '.join(trusted)}")


async def _device_clocks(store: Store) -> AsyncIterator[Check]:
    offset = func.abs(heartbeats.c.clock_offset_s)
    query = select(heartbeats.c.device_id).join(devices, devices.c.device_id == heartbeats.c.device_id)
    query = query.where(offset > DEVICE_CLOCK_OFF_S, devices.c.revoked_at_s.is_(None)).order_by(offset.desc())
    async with store.reading() as connection:
        names = (await connection.execute(query)).scalars().all()
    if names:
        shown = ", ".join(names[:SHOWN_NAMES]) + (" and others" if len(names) > SHOWN_NAMES else "")
        detail = f"{len(names)} devices are more than {DEVICE_CLOCK_OFF_S:.0f} s off: {shown}. Set their clocks by NTP."
        yield Check("device clocks", WARNING, detail)
    else:
        yield Check("device clocks", OK, f"all within {DEVICE_CLOCK_OFF_S:.0f} s")


def _authority(folder: Path) -> list[Check]:
    """Check the certificate of the authority and the permissions of its key."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        mode = (folder / "ca.key").stat().st_mode & 0o777
    except (OSError, ValueError) as error:
        return [Check("authority", FAILED, f"{folder}: cannot be read ({error}). Restore it from a backup.")]
    days = (certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)).days
    state = FAILED if days < 0 else WARNING if days < EXPIRES_SOON_DAYS else OK
    checks = [Check("authority", state, f"its certificate is valid for {days} days")]
    if mode & 0o077:
        detail = f"{folder / 'ca.key'}: others can read it (mode {mode:o}). Run chmod 600."
        checks.append(Check("secret key", FAILED, detail))
    else:
        checks.append(Check("secret key", OK, f"{folder / 'ca.key'} is readable by its owner only"))
    return checks


def _disk(folder: Path) -> Check:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("disk", FAILED, f"{folder}: cannot be examined ({error.strerror}). Correct data_dir.")
    state = FAILED if free < NO_DISK_BYTES else WARNING if free < LITTLE_DISK_BYTES else OK
    writable = os.access(folder, os.W_OK)
    detail = f"{free / 2**30:.1f} GiB free in {folder}" + ("" if writable else ", which this user cannot write")
    return Check("disk", state if writable else FAILED, detail)
