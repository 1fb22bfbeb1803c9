"""Devices, their enrolment tokens and their newest heartbeats."""

import hashlib
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.device_health import reported_health
from cloud.store import audit
from cloud.store.engine import Store
from cloud.store.heartbeat_history import note_heartbeat
from cloud.store.ingest import slices
from cloud.store.schema import device_removals, devices, heartbeats, tokens
from cloud.store.upsert import upsert
from shared.errors import EnrolmentError, SettingsError
from shared.status import Heartbeat

PLACE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # of device ids, sites and groups
MAX_TITLE_CHARACTERS = 80
TOKEN_ID_CHARACTERS = 16  # of the hash of the secret, which is random
_MAX_INTEGER = 2**63 - 1  # in the store; the wire carries unsigned 64-bit integers


@dataclass(frozen=True, slots=True)
class Device:
    """Enrolled device."""

    device_id: str
    enrolled_at_s: float
    certificate_serial: str
    certificate_expires_at_s: float
    revoked_at_s: float | None
    site: str
    group_name: str
    next_certificate_serial: str | None = None
    next_certificate_expires_at_s: float | None = None
    removed_at_s: float | None = None
    title: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Site and group of a device; None leaves one as it is."""

    site: str | None = None
    group: str | None = None

    def columns(self) -> dict[str, str]:
        """Return the columns to change."""
        values = {"site": self.site, "group_name": self.group}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class OpenToken:
    """Token that is neither spent nor expired; `token_id` names it and gives no access.

    `site` and `group` are those of the device from its enrolment on, None for those that it has.
    """

    token_id: str
    device_id: str
    created_at_s: float
    expires_at_s: float
    site: str | None
    group: str | None


NO_CHANGE = Place()


async def device(store: Store, device_id: str) -> Device | None:
    """Return the device of that id, or None if it was never enrolled."""
    async with store.reading() as connection:
        row = (await connection.execute(select(devices).where(devices.c.device_id == device_id))).one_or_none()
    return Device(**row._mapping) if row is not None else None


async def devices_by_id(store: Store, device_ids: Collection[str]) -> dict[str, Device]:
    """Return those devices that are enrolled."""
    found: dict[str, Device] = {}
    async with store.reading() as connection:
        for part in slices(list(device_ids)):
            rows = await connection.execute(select(devices).where(devices.c.device_id.in_(part)))
            found.update({row.device_id: Device(**row._mapping) for row in rows})
    return found


async def revoke(store: Store, device_id: str, actor: str | None = None) -> None:
    """Revoke the device and delete its unspent tokens; raises SettingsError for an unknown id."""
    async with store.writing() as connection:
        revoked = await connection.execute(
            update(devices)
            .where(devices.c.device_id == device_id)
            .values(revoked_at_s=func.coalesce(devices.c.revoked_at_s, time.time()))
        )
        if revoked.rowcount == 0:
            raise _unknown(device_id)
        await connection.execute(delete(tokens).where(tokens.c.device_id == device_id, tokens.c.spent_at_s.is_(None)))
        await audit.record(connection, actor or store.actor, audit.AuditAction.DEVICE_REVOKED, device_id)


async def set_place(store: Store, device_ids: Collection[str], place: Place, actor: str | None = None) -> None:
    """Move devices to a site or group in one transaction; raises SettingsError for an unknown id."""
    async with store.writing() as connection:
        for device_id in device_ids:
            moved = await connection.execute(
                update(devices).where(devices.c.device_id == device_id).values(place.columns())
            )
            if moved.rowcount == 0:
                raise _unknown(device_id)
            action = audit.AuditAction.DEVICE_PLACED
            await audit.record(connection, actor or store.actor, action, device_id, **place.columns())


async def set_title(store: Store, device_id: str, title: str, actor: str | None = None) -> None:
    """Name a device for people, "" for its id; raises SettingsError for an unknown id."""
    async with store.writing() as connection:
        named = update(devices).where(devices.c.device_id == device_id).values(title=title)
        if (await connection.execute(named)).rowcount == 0:
            raise _unknown(device_id)
        action = audit.AuditAction.DEVICE_NAMED
        await audit.record(connection, actor or store.actor, action, device_id, title=title)


async def add_tokens(
    store: Store,
    device_of_secret: Mapping[str, str],
    expires_at_s: float,
    place: Place = NO_CHANGE,
    actor: str | None = None,
) -> None:
    """Store the hashes of new tokens' secrets in one transaction; delete tokens that expired over 90 days ago."""
    now_s = time.time()
    of_all = {"created_at_s": now_s, "expires_at_s": expires_at_s, "site": place.site, "group_name": place.group}
    rows: list[dict[str, Any]] = [
        {"secret_sha256": _digest(secret), "device_id": device_id, **of_all}
        for secret, device_id in device_of_secret.items()
    ]
    async with store.writing() as connection:
        await connection.execute(delete(tokens).where(tokens.c.expires_at_s < now_s - 90 * 86_400))
        await connection.execute(insert(tokens), rows)
        made: list[tuple[str, dict[str, Any]]] = [(row["device_id"], {"expires_at_s": expires_at_s}) for row in rows]
        await audit.record_all(connection, actor or store.actor, audit.AuditAction.TOKEN_MADE, made)


async def open_tokens(store: Store, now_s: float, sites: Collection[str] = ()) -> list[OpenToken]:
    """Return the tokens that can be spent at `now_s`, by device and then by time of expiry.

    With `sites` only tokens that put a device into one of them, or that leave a device in one.
    """
    place = func.coalesce(tokens.c.site, devices.c.site)
    query = (
        select(tokens, place.label("place"))
        .outerjoin(devices, devices.c.device_id == tokens.c.device_id)
        .where(tokens.c.spent_at_s.is_(None), tokens.c.expires_at_s > now_s)
        .order_by(tokens.c.device_id, tokens.c.expires_at_s)
    )
    if sites:
        query = query.where(place.in_(sites))
    async with store.reading() as connection:
        return [_open_token(row) for row in await connection.execute(query)]


async def delete_token(
    store: Store, token_id: str, now_s: float, sites: Collection[str] = (), actor: str | None = None
) -> bool:
    """Delete a token that can be spent, of these sites; return False if there is none."""
    found = [each for each in await open_tokens(store, now_s, sites) if each.token_id == token_id]
    if not found:
        return False
    async with store.writing() as connection:
        this = (tokens.c.secret_sha256.startswith(token_id), tokens.c.spent_at_s.is_(None))
        if (await connection.execute(delete(tokens).where(*this))).rowcount == 0:  # spent meanwhile
            return False
        action = audit.AuditAction.TOKEN_DELETED
        await audit.record(connection, actor or store.actor, action, found[0].device_id)
    return True


def token_id_of(secret: str) -> str:
    """Return the id that names a token and gives no access."""
    return _digest(secret)[:TOKEN_ID_CHARACTERS]


def _open_token(row: Any) -> OpenToken:
    times = {"created_at_s": row.created_at_s, "expires_at_s": row.expires_at_s}
    place = {"site": row.site, "group": row.group_name}
    return OpenToken(token_id=row.secret_sha256[:TOKEN_ID_CHARACTERS], device_id=row.device_id, **times, **place)


async def device_of_token(connection: AsyncConnection, secret: str, now_s: float) -> str:
    """Return the device of a token; raises EnrolmentError if the token cannot be spent now."""
    row = (await connection.execute(select(tokens).where(tokens.c.secret_sha256 == _digest(secret)))).one_or_none()
    if row is None:
        raise EnrolmentError("This service does not know the token: make a new one with vedette cloud token.")
    if row.spent_at_s is not None:
        raise EnrolmentError(
            f"The token for {row.device_id!r} is spent already: make a new one with vedette cloud token."
        )
    if row.expires_at_s <= now_s:
        raise EnrolmentError(f"The token for {row.device_id!r} has expired: make a new one with vedette cloud token.")
    removal = select(device_removals.c.device_id).where(device_removals.c.device_id == row.device_id)
    if (await connection.execute(removal)).one_or_none() is not None:
        raise EnrolmentError(f"The data of {row.device_id!r} is being removed: try again in a few minutes.")
    return str(row.device_id)


async def spend_token(
    connection: AsyncConnection, secret: str, serial: str, certificate_expires_at_s: float, now_s: float
) -> None:
    """Enrol the token's device with a new certificate, which replaces an older one.

    Runs inside the transaction of `connection`.
    """
    device_id = await device_of_token(connection, secret, now_s)
    used = tokens.c.secret_sha256 == _digest(secret)
    await connection.execute(update(tokens).where(used).values(spent_at_s=now_s))
    site, group = (await connection.execute(select(tokens.c.site, tokens.c.group_name).where(used))).one()
    values = {
        "enrolled_at_s": now_s,
        "certificate_serial": serial,
        "certificate_expires_at_s": certificate_expires_at_s,
        "revoked_at_s": None,
        "next_certificate_serial": None,
        "next_certificate_expires_at_s": None,
        "removed_at_s": None,
        **Place(site, group).columns(),
    }
    await upsert(connection, devices, [{"device_id": device_id, **values}])
    details = {"certificate_serial": serial, "certificate_expires_at_s": certificate_expires_at_s}
    await audit.record(connection, f"device:{device_id}", audit.AuditAction.DEVICE_ENROLLED, device_id, **details)


async def store_heartbeat(
    store: Store, device_id: str, heartbeat: Heartbeat, clock_offset_s: float | None = None
) -> None:
    """Store the newest heartbeat of a device; integers beyond 64 signed bits are stored as the largest.

    `clock_offset_s`: the device's clock minus the service's, None if unknown. The first heartbeat of every few minutes
    enters the history.
    """
    values: dict[str, Any] = heartbeat.model_dump(exclude={"counters", "sent_at_ms", "near_copies"})
    values |= heartbeat.counters.model_dump()
    values = {name: min(value, _MAX_INTEGER) if type(value) is int else value for name, value in values.items()}
    received_at_s, health = time.time(), reported_health(heartbeat)
    values |= {
        "received_at_s": received_at_s,
        "agent_version": heartbeat.agent_version[:64],
        "clock_offset_s": clock_offset_s,
        "health": health,
    }
    async with store.writing() as connection:
        await upsert(connection, heartbeats, [{"device_id": device_id, **values}])
        state = {"health": health, "is_drifting": heartbeat.is_drifting}
        await note_heartbeat(connection, device_id, received_at_s, values, **state)


def _unknown(device_id: str) -> SettingsError:
    return SettingsError(f"No device {device_id!r} is enrolled: list the devices with vedette cloud devices.")


def _digest(secret: str) -> str:
    # A plain hash is enough: the secret has 256 random bits.
    return hashlib.sha256(secret.encode()).hexdigest()
