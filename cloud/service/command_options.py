"""The `--config` option of the service's commands, and the store that it names."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from cloud.store import Store

T = TypeVar("T")
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings of the service (TOML). Default: built-in values.")
]


def in_store(config: Path | None, action: "Callable[[Store], Awaitable[T]]") -> T:
    """Return the result of an action on the store of the service that the settings name."""
    from cloud.service.data_dir import migrate_existing, start_wait_s
    from cloud.settings import CloudSettings
    from cloud.store import open_store

    settings = CloudSettings.load(config)
    migrate_existing(settings.store, start_wait_s(config))

    async def work() -> T:
        async with open_store(settings.store) as store:
            return await action(store)

    return asyncio.run(work())
