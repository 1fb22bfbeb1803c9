"""Key sets of an installation in the store, and the keys that they make trusted now."""

import time
from itertools import pairwise

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import audit
from cloud.store.engine import Store, Where, open_store, store_exists
from cloud.store.schema import devices, heartbeats, key_sets
from shared.errors import CertificateError, StorageError
from shared.key_sets import KeySet, TrustedKey


class KeyChain:
    """Chain of key sets, newest last; `first_key` alone is trusted until a set is stored."""

    def __init__(self, store: Store, first_key: Ed25519PublicKey) -> None:
        self._store, self._first_key = store, first_key
        self._stored: tuple[KeySet, ...] = ()

    async def keys(self) -> tuple[Ed25519PublicKey, ...]:
        """Return the keys that may sign bundles now; raises StorageError if they cannot be read."""
        stored = await self._read()
        return stored[-1].public_keys if stored else (self._first_key,)

    async def sets(self, authority_sha256: str) -> tuple[KeySet, ...]:
        """Return the chain of the authority, from its root; raises StorageError if it cannot be read.

        A root is not stored before a set follows it. A new authority begins a new chain with the keys trusted before:
        its devices enrol again.
        """
        stored = await self._read()
        if not stored:
            return (KeySet.root([TrustedKey.of(self._first_key)], authority_sha256),)
        own = tuple(item for item in stored if item.content.authority_sha256 == authority_sha256)
        newest = stored[-1]
        if newest in own:
            return own
        return (KeySet.root(newest.content.keys, authority_sha256, newest.serial + 1),)

    async def append(self, chain: tuple[KeySet, ...], following: KeySet) -> None:
        """Store the set that follows a chain as `sets` returned it.

        Raises CertificateError if it does not follow, StorageError if another process was faster.
        """
        chain[-1].check_next(following)
        async with self._store.writing() as connection:
            known = {item.sha256 for item in await _stored(connection)}
            new = [item for item in (chain[-1], following) if item.sha256 not in known]
            newest = (await connection.execute(select(key_sets.c.serial).order_by(key_sets.c.serial.desc()))).scalar()
            if newest is not None and newest >= new[0].serial:
                raise StorageError("The trusted keys were changed at the same time: run the command again.")
            now_s = time.time()
            rows = [
                {"serial": item.serial, "data": item.data, "signature": item.signature, "stored_at_s": now_s}
                for item in new
            ]
            await connection.execute(insert(key_sets), rows)
            for action, key_ids in _changes(chain[-1], following):
                for key_id in key_ids:
                    await audit.record(connection, self._store.actor, action, key_id, key_set=following.serial)

    async def _read(self) -> tuple[KeySet, ...]:
        """Return the stored sets, verified once after each change."""
        async with self._store.reading() as connection:
            stored = await _stored(connection)
        if stored != self._stored:
            _verify(stored)
            self._stored = stored
        return self._stored


async def trusted_keys(where: Where, first_key: Ed25519PublicKey) -> tuple[Ed25519PublicKey, ...]:
    """Return the keys that may sign bundles in a store; `first_key` alone where there is none yet."""
    if not store_exists(where):
        return (first_key,)
    async with open_store(where) as store:
        return await KeyChain(store, first_key).keys()


async def confirmed_sets(store: Store) -> dict[str, str]:
    """Return the hash of the key set in force on each device that is not revoked; empty where it is unknown."""
    query = (
        select(devices.c.device_id, heartbeats.c.key_set_sha256)
        .select_from(devices.outerjoin(heartbeats))
        .where(devices.c.revoked_at_s.is_(None))
        .order_by(devices.c.device_id)
    )
    async with store.reading() as connection:
        return {row.device_id: row.key_set_sha256 or "" for row in await connection.execute(query)}


def _changes(before: KeySet, after: KeySet) -> tuple[tuple[audit.AuditAction, list[str]], ...]:
    """Return the ids of the keys that a set adds and retires."""
    added = [key_id for key_id in after.key_ids if key_id not in before.key_ids]
    retired = [key_id for key_id in before.key_ids if key_id not in after.key_ids]
    return (audit.AuditAction.KEY_ADDED, added), (audit.AuditAction.KEY_RETIRED, retired)


async def _stored(connection: AsyncConnection) -> tuple[KeySet, ...]:
    rows = await connection.execute(select(key_sets.c.data, key_sets.c.signature).order_by(key_sets.c.serial))
    try:
        return tuple(KeySet.parse(row.data, row.signature) for row in rows)
    except CertificateError as error:
        raise StorageError(f"A key set in the store is damaged ({error}) Restore a backup.") from None


def _verify(stored: tuple[KeySet, ...]) -> None:
    """Raise StorageError unless each set follows the one before, or is the root of a new authority's chain."""
    for before, after in pairwise(stored):
        if after.signature or after.content.authority_sha256 == before.content.authority_sha256:
            try:
                before.check_next(after)
            except CertificateError as error:
                raise StorageError(f"The key sets in the store are damaged: {error} Restore a backup.") from None
