"""Commands of the service: `vedette cloud serve | migrate | token | devices | publish | rollout`."""

import asyncio
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from shared.cli import CommandTree

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from cloud.settings import CloudSettings
    from cloud.store.registry import RegisteredBundle

T = TypeVar("T")
START_WAIT_S = 5.0
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings of the service (TOML). Default: built-in values.")
]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Print the settings in force as TOML and exit.")]


def add_commands(tree: CommandTree) -> None:
    """Add the commands to the tree."""
    cloud = tree.group("cloud")
    cloud.command(epilog="Example: [bold]vedette cloud serve --config cloud.toml[/bold]")(serve)
    cloud.command(epilog="Example: [bold]vedette cloud migrate --config cloud.toml[/bold]")(migrate)
    cloud.command(epilog="Example: [bold]vedette cloud token press-07 --config cloud.toml > press-07.token[/bold]")(
        token
    )
    cloud.command(epilog="Example: [bold]vedette cloud devices --revoke press-07 --config cloud.toml[/bold]")(devices)
    cloud.command(epilog="Example: [bold]vedette cloud publish press.vedette --config cloud.toml[/bold]")(publish)
    cloud.command(epilog="Example: [bold]vedette cloud rollout press --back --config cloud.toml[/bold]")(rollout)


def serve(config: Config = None, print_config: PrintConfig = False) -> None:
    """Run the service until Ctrl-C or SIGTERM."""
    settings = _settings(config)
    if print_config:
        typer.echo(settings.as_text())
        return
    from cloud.service.main import serve as run

    run(settings)


def migrate(config: Config = None) -> None:
    """Bring the store's tables up to date; serve does the same when it starts."""
    from cloud.service.data_dir import prepare
    from cloud.store.migrate import newest_revision

    settings = _settings(config)
    prepare(settings.data_dir)
    typer.echo(f"{settings.data_dir}: the store is at revision {newest_revision()}.")


def token(
    device_id: Annotated[str, typer.Argument(help="Device id: letters, digits, dots, dashes and underscores.")],
    valid_s: Annotated[
        float | None,
        typer.Option("--valid-s", min=1.0, help="Seconds until it expires. Default: token_valid_s."),
    ] = None,
    config: Config = None,
) -> None:
    """Make a one-time token that enrols a device, and print it on standard output."""
    from cloud.service.tokens import new_token

    settings = _settings(config)
    typer.echo(
        asyncio.run(
            new_token(
                settings,
                device_id,
                valid_s or settings.token_valid_s,
                secrets.token_urlsafe(32),
                wait_s=_wait_s(config),
            )
        )
    )


def devices(
    revoke: Annotated[str | None, typer.Option("--revoke", help="Revoke the certificate of this device.")] = None,
    config: Config = None,
) -> None:
    """List the devices, or revoke one: a running service ends its calls within seconds."""
    from cloud.service.data_dir import open_existing
    from cloud.store import Store
    from cloud.store.fleet import all_devices
    from cloud.store.fleet import revoke as revoke_device

    settings = _settings(config)
    open_existing(settings.data_dir, _wait_s(config))

    async def work() -> None:
        async with Store(settings.data_dir) as store:
            if revoke is not None:
                await revoke_device(store, revoke)
            for device in await all_devices(store):
                state = "revoked" if device.revoked_at_s is not None else "enrolled"
                typer.echo(
                    f"{device.device_id}  {state}  last seen {_moment(device.last_seen_at_s)}  "
                    f"certificate until {_moment(device.certificate_expires_at_s)}"
                )

    asyncio.run(work())


def publish(
    bundle: Annotated[Path, typer.Argument(help="Archive of the bundle.")],
    config: Config = None,
) -> None:
    """Add a bundle to the registry and make it current: devices that run its name fetch it."""
    from cloud.service.data_dir import open_existing
    from cloud.store.registry import publish_to
    from shared.bundle import Bundle

    settings = _settings(config)
    open_existing(settings.data_dir, _wait_s(config))
    key = _trusted_key(settings)
    opened = Bundle.open(bundle, [key])
    entry = asyncio.run(publish_to(settings.data_dir, opened, key))
    typer.echo(entry.bundle_id)


def rollout(
    name: Annotated[str, typer.Argument(help="Name of the bundles.")],
    to: Annotated[str | None, typer.Option("--to", help="Make the bundle with this id current.")] = None,
    back: Annotated[bool, typer.Option("--back", help="Make the previous bundle current again.")] = False,
    config: Config = None,
) -> None:
    """List the bundles of a name, newest first and the current one marked, or change the current one."""
    from cloud.service.data_dir import open_existing
    from cloud.store import Store
    from cloud.store.registry import Registry
    from shared.errors import BundleError, SettingsError

    settings = _settings(config)
    if to is not None and back:
        raise SettingsError("--to and --back together: give one of them.")
    open_existing(settings.data_dir, _wait_s(config))

    async def work() -> tuple[list["RegisteredBundle"], "RegisteredBundle | None"]:
        async with Store(settings.data_dir) as store:
            registry = Registry(store, settings.data_dir, _trusted_key(settings))
            versions = await registry.versions(name)
            if to is not None and to not in [entry.bundle_id for entry in versions]:
                raise BundleError(f"{to!r} is not a bundle named {name!r} in the registry: publish it first.")
            if to is not None:
                await registry.rollout(to)
            elif back:
                await registry.rollback(name)
            return versions, await registry.current(name)

    versions, current = asyncio.run(work())
    if not versions:
        raise BundleError(f"No bundle named {name!r} in the registry: add one with vedette cloud publish.")
    for entry in versions:
        mark = "*" if entry == current else " "
        typer.echo(f"{mark} {entry.bundle_id}  {entry.modality}  published {_moment(entry.published_at_s)}")


def _settings(config: Path | None) -> "CloudSettings":
    from cloud.settings import CloudSettings

    return CloudSettings.load(config)


def _wait_s(config: Path | None) -> float:
    """Return how long to wait for a service that is just starting: not at all for one that nobody named."""
    return START_WAIT_S if config is not None else 0.0


def _trusted_key(settings: "CloudSettings") -> "Ed25519PublicKey":
    from cloud.service.main import trusted_key

    return trusted_key(settings)


def _moment(at_s: float | None) -> str:
    return "never" if at_s is None else f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
