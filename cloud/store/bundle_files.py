"""Archives of bundles: files of the data directory, which are copies of objects if `bundle_store` names a place."""

from pathlib import Path

from cloud.settings import StoreLocation
from cloud.store.objects import objects_at
from shared.errors import StorageError
from shared.files import write_durably

BUNDLES_FOLDER = "bundles"


class BundleFiles:
    """Archives by file name. Its calls block; they raise StorageError if the objects cannot be reached."""

    def __init__(self, location: StoreLocation) -> None:
        self._folder = location.data_dir / BUNDLES_FOLDER
        self._objects = objects_at(location.bundles_url) if location.bundles_url else None

    def path(self, name: str) -> Path:
        """Return the path of the file, which may be missing."""
        return self._folder / name

    def fetched(self, name: str) -> Path:
        """Return the path of the file; if it is missing, another machine may have written it: copy the object."""
        path = self.path(name)
        if self._objects is not None and not path.exists():
            data = self._objects.read(name)
            if data is not None:
                write_durably(path, data)
        return path

    def write(self, name: str, data: bytes) -> None:
        """Write an archive: the object first, so that every machine finds what the store names."""
        if self._objects is not None:
            self._objects.write(name, data)
        write_durably(self.path(name), data)


def archive_name(bundle_id: str) -> str:
    """Return the name of the file with a whole bundle."""
    return f"{bundle_id}.vedette"


def stored_archive(location: StoreLocation, bundle_id: str) -> Path | bytes:
    """Return the archive of a bundle: its file, or the object if `bundle_store` names a place; writes no copy.

    Raises StorageError if there is none on this machine, or if the objects cannot be read.
    """
    name = archive_name(bundle_id)
    if location.bundles_url:
        data = objects_at(location.bundles_url).read(name)
        if data is None:
            raise StorageError(f"{location.bundles_url}: has no {name}. Publish the bundle again.")
        return data
    path = BundleFiles(location).path(name)
    if not path.exists():
        raise StorageError(f"{path}: is not on this machine. Set bundle_store to a place that all machines reach.")
    return path
