"""Bundles on a device: the current and the previous one of each name, and the ids of those that failed here."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.settings.sources import SourceSettings
from shared.bundle import MAX_ARCHIVE_BYTES, Bundle
from shared.errors import BundleError, BundleIntegrityError, UntrustedBundleError
from shared.files import write_durably
from shared.logs import EventLog

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")

log = EventLog("bundles")


class BundleCache:
    """A folder of archives and an index. Used by one thread at a time."""

    def __init__(self, folder: Path, trusted_keys: Iterable[Ed25519PublicKey]) -> None:
        """Read the index at `folder`, or start without one."""
        self._folder, self._keys = folder, tuple(trusted_keys)
        self._index_path = folder / "index.json"
        self._names: dict[str, list[str]] = {}  # ids by name: the current one, then the previous
        self._failed: dict[str, str] = {}
        self._trials: dict[str, int] = {}  # attempts without a result, by id
        self._refused: dict[str, str] = {}  # until the trusted keys change, or the next start
        self._stale: set[str] = set()
        if self._index_path.exists():
            self._read_index()

    def trust(self, keys: Iterable[Ed25519PublicKey]) -> None:
        """Trust these keys from now on. May be called while another thread uses the cache.

        Refused archives may be fetched again. Archives in use that no trusted key signed become stale.
        """
        self._keys = tuple(keys)
        self._refused.clear()
        for bundle_id in [ids[0] for ids in list(self._names.values()) if ids]:
            try:
                self.open_id(bundle_id)
            except UntrustedBundleError:
                self._stale.add(bundle_id)
            except BundleError as error:
                log.warning(
                    "cached_bundle_unusable", bundle=bundle_id, error=error, advice="it is fetched at a restart"
                )

    def is_stale(self, bundle_id: str) -> bool:
        """Return whether the bundle runs, but the device could not load it again: no trusted key signed its archive."""
        return bundle_id in self._stale

    def current(self, name: str) -> Bundle | None:
        """Return the newest undamaged bundle of a name, or None. A damaged one is logged and skipped."""
        for bundle_id in self._names.get(name, []):
            try:
                return Bundle.open(self._path(bundle_id), self._keys, edge_only=True)
            except BundleError as error:
                log.error("cached_bundle_unusable", bundle=bundle_id, error=error, advice="it is fetched again")
        return None

    def open(self, path: Path) -> Bundle:
        """Open a bundle file that the configuration names; raises BundleError."""
        return Bundle.open(path, self._keys, edge_only=True)

    def partial(self, bundle_id: str) -> Path:
        """Return the path of a partly fetched archive; raises BundleError for an invalid id."""
        return self._path(bundle_id).with_suffix(".part")

    def accept(self, bundle_id: str, archive_sha256: bytes) -> Bundle:
        """Check the fetched archive, keep it and open it.

        Raises BundleIntegrityError if it is not the announced archive, BundleError if the announced archive is not a
        trusted bundle. In both cases the archive is removed.
        """
        part = self.partial(bundle_id)
        try:
            data = part.read_bytes() if part.stat().st_size <= MAX_ARCHIVE_BYTES else b""
            bundle = self.verify(bundle_id, data, archive_sha256)
        except BundleError:
            part.unlink(missing_ok=True)
            raise
        write_durably(self._path(bundle_id), data)
        part.unlink(missing_ok=True)
        self._stale.discard(bundle_id)
        return bundle

    def verify(self, bundle_id: str, data: bytes, archive_sha256: bytes) -> Bundle:
        """Return the bundle in a fetched archive; raises as `accept`, and keeps nothing."""
        if hashlib.sha256(data).digest() != archive_sha256:
            raise BundleIntegrityError(f"{bundle_id}: the archive is not the one announced. It is fetched again.")
        try:
            bundle = Bundle.open(data, self._keys, edge_only=True)
        except UntrustedBundleError as error:
            raise UntrustedBundleError(f"{bundle_id}: {error}") from None
        except BundleIntegrityError as error:  # as announced: another fetch would not help
            raise BundleError(f"{bundle_id}: {error}") from None
        if bundle.manifest.bundle_id != bundle_id:
            raise BundleError(f"{bundle_id}: the archive holds {bundle.manifest.bundle_id} instead.")
        return bundle

    def has(self, bundle_id: str) -> bool:
        """Return whether the archive is in the cache."""
        return self._path(bundle_id).exists()

    def open_id(self, bundle_id: str) -> Bundle:
        """Open an archive of the cache; raises BundleError."""
        return Bundle.open(self._path(bundle_id), self._keys, edge_only=True)

    def begin_trial(self, bundle_id: str) -> int:
        """Count an attempt to load the bundle, and return the number of attempts without a result.

        The count is on disk before the attempt, so it includes attempts that end the process. Raises OSError.
        """
        self._trials[bundle_id] = self._trials.get(bundle_id, 0) + 1
        self._save()
        return self._trials[bundle_id]

    def make_current(self, name: str, bundle_id: str) -> None:
        """Note that the bundle runs: keep it and the previous one, and remove older ones. Raises OSError."""
        ids = [bundle_id, *(other for other in self._names.get(name, []) if other != bundle_id)]
        self._names[name] = ids[:2]
        self._trials.pop(bundle_id, None)
        self._save()
        kept = {bundle_id for ids in self._names.values() for bundle_id in ids}
        for path in self._folder.glob("*.bundle"):
            if path.stem not in kept:
                path.unlink(missing_ok=True)
        for path in self._folder.glob("*.part"):
            if path.stem.rsplit("-", 2)[0] == name:  # an older fetch of the same name
                path.unlink(missing_ok=True)

    def mark_failed(self, name: str, bundle_id: str, reason: str) -> None:
        """Note that the bundle failed: it is not tried again, and the previous one is current. Raises OSError."""
        self._failed[bundle_id] = reason
        self._trials.pop(bundle_id, None)
        self._names[name] = [other for other in self._names.get(name, []) if other != bundle_id]
        self._save()

    def refuse(self, bundle_id: str, reason: str) -> None:
        """Note that the archive cannot be trusted: it is not fetched again before the trusted keys change."""
        self._refused[bundle_id] = reason

    def failure(self, bundle_id: str) -> str:
        """Return the reason why the bundle failed here or was refused, or an empty text."""
        return self._failed.get(bundle_id) or self._refused.get(bundle_id, "")

    def _path(self, bundle_id: str) -> Path:
        if not _ID.fullmatch(bundle_id):
            raise BundleError(f"{bundle_id[:80]!r} is not the id of a bundle.")
        return self._folder / f"{bundle_id}.bundle"

    def _save(self) -> None:
        index = {"names": self._names, "failed": self._failed, "trials": self._trials}
        write_durably(self._index_path, json.dumps(index, indent=1).encode())

    def _read_index(self) -> None:
        try:
            index = json.loads(self._index_path.read_bytes())
            self._names = {str(name): [str(item) for item in ids] for name, ids in index["names"].items()}
            self._failed = {str(bundle_id): str(reason) for bundle_id, reason in index["failed"].items()}
            self._trials = {str(bundle_id): int(count) for bundle_id, count in index.get("trials", {}).items()}
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            log.warning("index_unreadable", path=self._index_path, error=error, advice="bundles are fetched again")


def first_bundle(cache: BundleCache, source: SourceSettings) -> Bundle | None:
    """Return the newer of the configured and the last fetched bundle; None: a bundle must be fetched."""
    configured = cache.open(source.bundle) if source.bundle is not None else None
    fetched = cache.current(source.bundle_name) if source.bundle_name is not None else None
    if configured is None or fetched is None:
        return configured or fetched
    return max(configured, fetched, key=lambda bundle: bundle.manifest.version)
