"""Version of a new bundle: as asked for if it is free, else the next free one."""

import asyncio
from pathlib import Path

from cloud.settings import CloudSettings
from cloud.store import open_store
from cloud.store.engine import check_store
from cloud.store.registry import versions_of
from shared.bundle import Bundle
from shared.errors import BundleError, SettingsError


def choose_version(name: str, asked: int, output: Path, registry: Path | None) -> tuple[int, str]:
    """Return the version of a new bundle, and a sentence that says why it is this one.

    Versions of the same name count as taken in the archive at `output`, which the new bundle replaces, and in the
    registry of the service with the settings `registry`.

    Args:
        name: Name of the new bundle.
        asked: Version to use; 0 for the next free one.
        output: File that the bundle will be written to.
        registry: `cloud.toml` of a service, None if no registry is named.

    Raises SettingsError if the version is taken or there is no such service.
    """
    taken = _at_output(name, output) | (_in_registry(name, registry) if registry is not None else {})
    free = max(taken, default=0) + 1
    if asked in taken:
        raise SettingsError(
            f"Version {asked} of {name!r} is taken: {taken[asked]}. The next free version is {free}: give --version "
            f"{free}, or leave it out."
        )
    if asked:
        return asked, f"This becomes version {asked} of {name!r}, as asked for; the next free one is {free}."
    newest = f"; version {free - 1} is {taken[free - 1]}" if taken else ""
    return free, f"This becomes version {free} of {name!r}, the next free one{newest}."


def _at_output(name: str, output: Path) -> dict[int, str]:
    if not output.is_file():
        return {}
    try:
        manifest = Bundle.peek(output)
    except BundleError:  # another file, or a bundle of another format: it is replaced
        return {}
    return {manifest.version: f"{manifest.bundle_id} at {output}"} if manifest.name == name else {}


def _in_registry(name: str, config: Path) -> dict[int, str]:
    location = CloudSettings.load(config).store
    check_store(location, "--registry")

    async def work() -> dict[int, str]:
        async with open_store(location) as store, store.reading() as connection:
            entries = await versions_of(connection, name)
        return {entry.version: f"{entry.bundle_id} in the registry of {config}" for entry in entries}

    return asyncio.run(work())
