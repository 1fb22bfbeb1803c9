"""Registry of bundles, with the current one of each name.

Archives are files (`cloud.store.bundle_files`); the current bundle of a name is in the store, so that publishing from
another process reaches a running service. The signature is verified when a bundle is published and whenever it is
opened.
"""

import asyncio
import hashlib
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store import Store, audit, open_store
from cloud.store.bundle_files import BundleFiles, archive_name
from cloud.store.engine import Where, location_of
from cloud.store.events import BundleChange, add_bundle_change
from cloud.store.ingest import slices
from cloud.store.key_sets import KeyChain
from cloud.store.schema import bundles, rollouts, staged_rollouts
from shared.bundle import Bundle, Manifest
from shared.errors import BundleError, BundleIntegrityError, RolloutError, UntrustedBundleError
from shared.signing_keys import key_id

_PUBLISH, _ROLLBACK = "publish", "rollback"
_COLUMNS = tuple(column for column in bundles.c if column.name != "manifest")


@dataclass(frozen=True, slots=True)
class RegisteredBundle:
    """Bundle of the registry; `edge_archive_*` describe the archive without `cloud/`, which devices fetch."""

    bundle_id: str
    name: str
    version: int
    modality: str
    published_at_s: float
    parent_bundle_id: str
    edge_archive_bytes: int
    edge_archive_sha256: str


class Registry:
    """Bundles of one store, signed by a key of `key_chain`; `trusted_key` alone while it has no set."""

    def __init__(self, store: Store, where: Where, trusted_key: Ed25519PublicKey) -> None:
        self._store = store
        self._files = BundleFiles(location_of(where))
        self.key_chain = KeyChain(store, trusted_key)
        self._trusted: dict[str, tuple[object, bool]] = {}  # state of the files and the keys, and the outcome, by id

    async def publish(self, bundle: Bundle, *, make_current: bool = True, actor: str | None = None) -> RegisteredBundle:
        """Add the bundle and make it the current one of its name; publishing it again is no error.

        Without `make_current` the current bundle of the name stays as it is, even if there is none. `actor` is named in
        the audit log, by default the store's.

        Raises UntrustedBundleError if no trusted key signed it, BundleError if another bundle has its version,
        StorageError if it cannot be written.
        """
        actor = actor or self._store.actor
        archive = await asyncio.to_thread(bundle.archive)
        checked = await asyncio.to_thread(Bundle.open, archive, await self.key_chain.keys())
        manifest = checked.manifest
        async with self._store.reading() as connection:
            await _check_version_is_free(connection, manifest)
        edge_archive = await asyncio.to_thread(checked.archive, edge_only=True)
        await asyncio.to_thread(self._write, manifest.bundle_id, archive, edge_archive)
        async with self._store.writing() as connection:
            await _check_version_is_free(connection, manifest)  # another process may have published meanwhile
            row = _row(manifest, edge_archive)
            known = await entry_of(connection, manifest.bundle_id)
            if known is None:
                await connection.execute(insert(bundles).values(row))
            else:  # perhaps signed with another key, which changes the archive
                archive_columns = {name: row[name] for name in ("edge_archive_bytes", "edge_archive_sha256")}
                same = bundles.c.bundle_id == manifest.bundle_id
                await connection.execute(update(bundles).where(same).values(**archive_columns))
            if known is None or known.edge_archive_sha256 != row["edge_archive_sha256"]:
                details = {"name": manifest.name, "edge_archive_sha256": row["edge_archive_sha256"]}
                done = audit.AuditAction.BUNDLE_PUBLISHED
                await audit.record(connection, actor, done, manifest.bundle_id, **details)
            if make_current and await _current_id(connection, manifest.name) != manifest.bundle_id:
                await set_current(connection, actor, manifest.name, manifest.bundle_id, _PUBLISH)
        return await self._known(manifest.bundle_id)

    async def rollout(self, bundle_id: str) -> RegisteredBundle:
        """Make a bundle the current one of its name; raises BundleError if it is unknown or does not verify."""
        entry = await self._known(bundle_id)
        await self.verify(entry)
        async with self._store.writing() as connection:
            if await _current_id(connection, entry.name) != bundle_id:
                await set_current(connection, self._store.actor, entry.name, bundle_id, _PUBLISH)
        return entry

    async def rollback(self, name: str, *, actor: str | None = None, seen: str = "") -> RegisteredBundle:
        """Make the previous bundle of the name current again; `actor` is named in the audit log.

        `seen`: bundle that must be the current one still. Raises BundleError if it is not, if there is no previous one,
        or if that does not verify.
        """
        async with self._store.reading() as connection:
            previous = await self._known(await _previous_id(connection, name))
        await self.verify(previous)
        async with self._store.writing() as connection:
            is_current = not seen or await _current_id(connection, name) == seen
            if await _previous_id(connection, name) != previous.bundle_id or not is_current:
                raise BundleError(
                    f"The current bundle of {name!r} was changed at the same time: run the command again."
                )
            await set_current(connection, actor or self._store.actor, name, previous.bundle_id, _ROLLBACK)
        return previous

    async def current(self, name: str) -> RegisteredBundle | None:
        """Return the current bundle of a name, or None."""
        async with self._store.reading() as connection:
            bundle_id = await _current_id(connection, name)
            return await entry_of(connection, bundle_id) if bundle_id is not None else None

    async def all_current(self) -> list[RegisteredBundle]:
        """Return the current bundle of every name, ordered by name."""
        async with self._store.reading() as connection:
            return await current_bundles(connection)

    async def versions(self, name: str) -> list[RegisteredBundle]:
        """Return all bundles of a name, newest version first."""
        async with self._store.reading() as connection:
            return await versions_of(connection, name)

    async def entry(self, bundle_id: str) -> RegisteredBundle | None:
        """Return the registry's entry of one bundle without opening it, or None."""
        async with self._store.reading() as connection:
            return await entry_of(connection, bundle_id)

    async def manifest(self, bundle_id: str) -> Manifest:
        """Return the manifest of one bundle; raises BundleError if it is not in the registry."""
        async with self._store.reading() as connection:
            query = select(bundles.c.manifest).where(bundles.c.bundle_id == bundle_id)
            value = (await connection.execute(query)).scalar_one_or_none()
        if value is None:
            raise _unknown(bundle_id)
        return Manifest.model_validate(value)

    async def rolled_out(self, bundle_ids: Collection[str]) -> list[Manifest]:
        """Return the manifests of those bundles that devices got: the current one of their name once, or in stages."""
        was_current = select(rollouts.c.bundle_id).where(rollouts.c.bundle_id == bundles.c.bundle_id).exists()
        had_stages = select(staged_rollouts.c.number).where(staged_rollouts.c.bundle_id == bundles.c.bundle_id).exists()
        found: list[Manifest] = []
        async with self._store.reading() as connection:
            for part in slices(list(bundle_ids)):
                query = select(bundles.c.manifest).where(bundles.c.bundle_id.in_(part), was_current | had_stages)
                found += [Manifest.model_validate(value) for value in (await connection.execute(query)).scalars()]
        return found

    async def bundle(self, bundle_id: str) -> Bundle:
        """Return the whole bundle, verified; raises BundleError if it is not in the registry."""
        await self._known(bundle_id)
        path = await asyncio.to_thread(self._files.fetched, archive_name(bundle_id))
        return await asyncio.to_thread(Bundle.open, path, await self.key_chain.keys())

    async def verify(self, entry: RegisteredBundle) -> None:
        """Verify both archives of a bundle; raises BundleError if one is missing, damaged or not trusted."""
        await asyncio.to_thread(self._verify, entry, await self.key_chain.keys())

    async def current_signers(self) -> dict[str, str]:
        """Return the id of the key that signed each current bundle; empty for one that does not verify."""
        return await self.signers([entry.bundle_id for entry in await self.all_current()])

    async def signers(self, bundle_ids: Sequence[str]) -> dict[str, str]:
        """Return the id of the key that signed each of these bundles; empty for one that does not verify."""
        keys, signers = await self.key_chain.keys(), dict[str, str]()
        for bundle_id in bundle_ids:
            try:
                signer = (await self.bundle(bundle_id)).signer(keys)
            except BundleError:
                signer = None
            signers[bundle_id] = key_id(signer) if signer is not None else ""
        return signers

    async def state(self, entry: RegisteredBundle) -> tuple[object, ...]:
        """Return a value that changes when a file of the bundle or the trusted keys change; no file is read."""
        names = (archive_name(entry.bundle_id), _edge_archive_name(entry.bundle_id))
        paths = [self._files.path(name) for name in names]
        files = await asyncio.to_thread(lambda: tuple(_file_state(path) for path in paths))
        return entry.edge_archive_sha256, files, tuple(key_id(key) for key in await self.key_chain.keys())

    async def judging_bundle_id(self, edge_bundle_id: str) -> str | None:
        """Return the bundle that judges a sample: the one that screened it, else the current one of its name.

        The current one also takes the samples of a bundle whose signing key was retired.
        """
        entry = await self.entry(edge_bundle_id)
        if entry is not None and await self._is_trusted(entry):
            return edge_bundle_id
        name, *rest = edge_bundle_id.rsplit("-", 2)  # name-version-hash
        current = await self.current(name) if len(rest) == 2 else None
        return current.bundle_id if current is not None else None

    async def archive(self, bundle_id: str) -> Path:
        """Return the path of the whole archive, for a bundle of the registry. Raises BundleError, StorageError."""
        await self._known(bundle_id)
        path = await asyncio.to_thread(self._files.fetched, archive_name(bundle_id))
        if not await asyncio.to_thread(path.is_file):
            raise BundleError(f"The archive of {bundle_id} is missing: publish it again with vedette cloud publish.")
        return path

    async def edge_archive(self, bundle_id: str) -> Path:
        """Return the path of the archive that devices fetch, for a bundle of the registry. Raises StorageError."""
        return await asyncio.to_thread(self._files.fetched, _edge_archive_name(bundle_id))

    async def _known(self, bundle_id: str) -> RegisteredBundle:
        entry = await self.entry(bundle_id)
        if entry is None:
            raise _unknown(bundle_id)
        return entry

    async def _is_trusted(self, entry: RegisteredBundle) -> bool:
        """Return whether a trusted key signed the bundle; also true for one that cannot be read, which is reported."""
        state = await self.state(entry)
        if self._trusted.get(entry.bundle_id, (None, True))[0] != state:
            try:
                await self.bundle(entry.bundle_id)
                is_trusted = True
            except BundleError as error:
                is_trusted = not isinstance(error, UntrustedBundleError)
            self._trusted[entry.bundle_id] = (state, is_trusted)
        return self._trusted[entry.bundle_id][1]

    def _verify(self, entry: RegisteredBundle, keys: Sequence[Ed25519PublicKey]) -> None:
        Bundle.open(self._files.fetched(archive_name(entry.bundle_id)), keys)
        path = self._files.fetched(_edge_archive_name(entry.bundle_id))
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror}). Publish the bundle again.") from None
        if digest != entry.edge_archive_sha256:
            raise BundleIntegrityError(f"{path}: differs from the archive that was published. Publish it again.")

    def _write(self, bundle_id: str, archive: bytes, edge_archive: bytes) -> None:
        self._files.write(_edge_archive_name(bundle_id), edge_archive)
        self._files.write(archive_name(bundle_id), archive)


async def current_bundles(connection: AsyncConnection) -> list[RegisteredBundle]:
    """Return the current bundle of every name, ordered by name."""
    newest = select(func.max(rollouts.c.number)).group_by(rollouts.c.bundle_name)
    query = (
        select(*_COLUMNS)
        .join(rollouts, rollouts.c.bundle_id == bundles.c.bundle_id)
        .where(rollouts.c.number.in_(newest))
        .order_by(bundles.c.name)
    )
    return [RegisteredBundle(**row._mapping) for row in await connection.execute(query)]


async def versions_of(connection: AsyncConnection, name: str) -> list[RegisteredBundle]:
    """Return all bundles of a name, newest version first."""
    query = select(*_COLUMNS).where(bundles.c.name == name).order_by(bundles.c.version.desc())
    return [RegisteredBundle(**row._mapping) for row in await connection.execute(query)]


async def publish_to(
    where: Where, bundle: Bundle, trusted_key: Ed25519PublicKey, *, make_current: bool = True
) -> RegisteredBundle:
    """Publish into a store; a service that runs on it notices within a second."""
    async with open_store(where) as store:
        return await Registry(store, where, trusted_key).publish(bundle, make_current=make_current)


def _edge_archive_name(bundle_id: str) -> str:
    return f"{bundle_id}.edge.vedette"


def _unknown(bundle_id: str) -> BundleError:
    return BundleError(f"No bundle {bundle_id!r} in the registry: publish it with vedette cloud publish.")


def _file_state(path: Path) -> tuple[int, ...]:
    """Return inode, size and time of the last change of a file; an empty tuple if it cannot be read."""
    try:
        facts = path.stat()
    except OSError:
        return ()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _row(manifest: Manifest, edge_archive: bytes) -> dict[str, object]:
    return {
        "bundle_id": manifest.bundle_id,
        "name": manifest.name,
        "version": manifest.version,
        "modality": manifest.modality.value,
        "published_at_s": time.time(),
        "parent_bundle_id": manifest.parent_bundle_id,
        "edge_archive_bytes": len(edge_archive),
        "edge_archive_sha256": hashlib.sha256(edge_archive).hexdigest(),
        "manifest": manifest.model_dump(mode="json"),
    }


async def entry_of(connection: AsyncConnection, bundle_id: str) -> RegisteredBundle | None:
    """Return the registry's entry of one bundle, or None."""
    row = (await connection.execute(select(*_COLUMNS).where(bundles.c.bundle_id == bundle_id))).one_or_none()
    return RegisteredBundle(**row._mapping) if row is not None else None


async def _check_version_is_free(connection: AsyncConnection, manifest: Manifest) -> None:
    query = select(bundles.c.bundle_id).where(
        bundles.c.name == manifest.name,
        bundles.c.version == manifest.version,
        bundles.c.bundle_id != manifest.bundle_id,
    )
    other = (await connection.execute(query)).scalar_one_or_none()
    if other is not None:
        raise BundleError(
            f"Version {manifest.version} of {manifest.name!r} is {other} already, another bundle: give the new one a "
            "higher version."
        )


async def _current_id(connection: AsyncConnection, name: str) -> str | None:
    newest = select(rollouts.c.bundle_id).where(rollouts.c.bundle_name == name).order_by(rollouts.c.number.desc())
    return (await connection.execute(newest.limit(1))).scalar_one_or_none()


async def _previous_id(connection: AsyncConnection, name: str) -> str:
    """Return the bundle that was current before the present one; raises BundleError if there is none."""
    history = await connection.execute(
        select(rollouts.c.bundle_id, rollouts.c.action)
        .where(rollouts.c.bundle_name == name)
        .order_by(rollouts.c.number)
    )
    stack: list[str] = []
    for bundle_id, action in history:
        if action == _ROLLBACK:
            stack.pop()
        else:
            stack.append(bundle_id)
    if len(stack) < 2:
        raise BundleError(f"No bundle {name!r} was current before: list them with vedette cloud rollout {name}.")
    return stack[-2]


async def set_current(
    connection: AsyncConnection, actor: str, name: str, bundle_id: str, action: str = _PUBLISH
) -> None:
    """Make a bundle the current one of its name and tell all devices, inside a write transaction.

    Raises RolloutError while a rollout of the name is under way.
    """
    await check_no_rollout(connection, name)
    now_s, before = time.time(), await _current_id(connection, name)
    await connection.execute(insert(rollouts).values(bundle_name=name, bundle_id=bundle_id, action=action, at_s=now_s))
    await add_bundle_change(connection, BundleChange(name, bundle_id), now_s)
    done = audit.AuditAction.BUNDLE_ROLLED_BACK if action == _ROLLBACK else audit.AuditAction.BUNDLE_CURRENT
    await audit.record(connection, actor, done, bundle_id, name=name, before=before)


async def check_no_rollout(connection: AsyncConnection, name: str) -> None:
    """Raise RolloutError while a rollout of the name is under way or paused."""
    active = select(staged_rollouts.c.bundle_id).where(
        staged_rollouts.c.bundle_name == name, staged_rollouts.c.ended_at_s.is_(None)
    )
    if other := (await connection.execute(active)).scalar_one_or_none():
        raise RolloutError(
            f"A rollout of {name!r} to {other} is under way: publish with --keep-current, or end it first with "
            f"vedette cloud rollout back {name}."
        )
