"""Archives of bundles: files of the data directory, which are copies of objects if `bundle_store` names a place."""

from pathlib import Path

from cloud.settings import StoreLocation
from cloud.store.objects import ObjectStore
from shared.files import write_durably

BUNDLES_FOLDER = "bundles"


class BundleFiles:
    """Archives by file name. Its calls block; they raise StorageError if the objects cannot be reached."""

    def __init__(self, location: StoreLocation) -> None:
        self._folder = location.data_dir / BUNDLES_FOLDER
        self._objects = ObjectStore(location.bundles_url) if location.bundles_url else None

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
