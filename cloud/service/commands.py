"""Commands of the service: `vedette cloud serve | migrate | token | publish`."""

import asyncio
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from cloud.service.command_options import Config
from shared.cli import CommandTree

if TYPE_CHECKING:
    from cloud.settings import CloudSettings

T = TypeVar("T")
RoleName = Literal["all", "ingest", "analysis", "console", "training"]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Print the settings in force as TOML and exit.")]


def add_commands(tree: CommandTree) -> None:
    """Add the commands to the tree."""
    cloud = tree.group("cloud")
    cloud.command(epilog="Example: [bold]vedette cloud serve --config cloud.toml[/bold]")(serve)
    cloud.command(epilog="Example: [bold]vedette cloud migrate --config cloud.toml[/bold]")(migrate)
    cloud.command(
        epilog="Examples: [bold]vedette cloud token press-07 --config cloud.toml > press-07.token[/bold], "
        "[bold]vedette cloud token --many devices.txt --output tokens --config cloud.toml[/bold]"
    )(token)
    cloud.command(epilog="Example: [bold]vedette cloud publish press.vedette --config cloud.toml[/bold]")(publish)


def serve(
    config: Config = None,
    role: Annotated[
        RoleName,
        typer.Option(help="Work of this process: all, or one role of several processes over one PostgreSQL store."),
    ] = "all",
    print_config: PrintConfig = False,
) -> None:
    """Run the service until Ctrl-C or SIGTERM."""
    settings = _settings(config)
    if print_config:
        typer.echo(settings.as_text())
        return
    from cloud.service.main import serve as run
    from cloud.service.roles import Role

    run(settings, role=Role(role))


def migrate(config: Config = None) -> None:
    """Bring the tables of an existing store up to date; serve does the same when it starts."""
    from cloud.service.data_dir import migrate_existing
    from cloud.store.migrate import newest_revision

    settings = _settings(config)
    migrate_existing(settings.store)
    typer.echo(f"{settings.data_dir}: the store is at revision {newest_revision()}.")


def token(
    device_id: Annotated[
        str | None, typer.Argument(help="Device id: letters, digits, dots, dashes and underscores.")
    ] = None,
    many: Annotated[
        Path | None,
        typer.Option("--many", metavar="FILE", help="Make a token for each device id in this file, one per line."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Write DEVICE.token files here and print their paths."),
    ] = None,
    list_open: Annotated[
        bool, typer.Option("--list", help="List the tokens that can still be spent, without their secrets.")
    ] = False,
    valid_s: Annotated[
        float | None,
        typer.Option("--valid-s", min=1.0, help="Seconds until it expires. Default: token_valid_s."),
    ] = None,
    site: Annotated[str | None, typer.Option(help="Site of the devices. Default: the one a device has.")] = None,
    group: Annotated[str | None, typer.Option(help="Group of the devices. Default: the one a device has.")] = None,
    config: Config = None,
) -> None:
    """Make one-time tokens that enrol devices, and print them on standard output; or list the open ones.

    One device: the token alone. With --many: a line for each device, its id and its token, or its file with --output.
    """
    from cloud.service.data_dir import start_wait_s
    from cloud.service.tokens import new_tokens, read_device_ids, token_path
    from cloud.store.fleet import Place
    from shared.errors import SettingsError

    settings = _settings(config)
    if (device_id is not None) + (many is not None) + list_open != 1:
        raise SettingsError("Give one of them: a device id, --many FILE or --list.")
    if list_open:
        if any(option is not None for option in (output, valid_s, site, group)):
            raise SettingsError("--list makes no token: leave out --output, --valid-s, --site and --group.")
        _list_tokens(settings, config)
        return
    device_ids = read_device_ids(many) if many is not None else [str(device_id)]
    new_secrets = {each: secrets.token_urlsafe(32) for each in device_ids}
    valid_s = valid_s or settings.token_valid_s
    place, wait_s = Place(site, group), start_wait_s(config)
    texts = asyncio.run(new_tokens(settings, new_secrets, valid_s, output=output, wait_s=wait_s, place=place))
    for each, text in texts.items():
        shown = text if output is None else str(token_path(output, each))
        typer.echo(shown if many is None else f"{each}  {shown}")


def _list_tokens(settings: "CloudSettings", config: Path | None) -> None:
    from cloud.service.data_dir import migrate_existing, start_wait_s
    from cloud.store import open_store
    from cloud.store.fleet import OpenToken, open_tokens
    from cloud.words import moment_words

    migrate_existing(settings.store, start_wait_s(config))

    async def work() -> list[OpenToken]:
        async with open_store(settings.store) as store:
            return await open_tokens(store, time.time())

    for each in asyncio.run(work()):
        typer.echo(f"{each.device_id}  expires {moment_words(each.expires_at_s)}")


def publish(
    bundle: Annotated[list[Path], typer.Argument(help="Archives of bundles.")],
    keep_current: Annotated[
        bool,
        typer.Option("--keep-current", help="Only store them; vedette cloud rollout NAME --to ID makes one current."),
    ] = False,
    config: Config = None,
) -> None:
    """Add bundles to the registry and make them current: devices that run their names fetch them.

    With --keep-current they are only stored, and devices keep the bundles they run. All archives are checked before the
    first one is published.
    """
    from cloud.service.data_dir import migrate_existing, start_wait_s
    from cloud.service.trusted_key import trusted_key_for_command
    from cloud.store import open_store
    from cloud.store.registry import Registry
    from shared.bundle import Bundle

    settings = _settings(config)
    migrate_existing(settings.store, start_wait_s(config))

    async def work() -> None:
        async with open_store(settings.store) as store:
            registry = Registry(store, settings.store, trusted_key_for_command(settings))
            keys = await registry.key_chain.keys()
            for opened in [await asyncio.to_thread(Bundle.open, path, keys) for path in bundle]:
                typer.echo((await registry.publish(opened, make_current=not keep_current)).bundle_id)

    asyncio.run(work())


def _settings(config: Path | None) -> "CloudSettings":
    from cloud.settings import CloudSettings

    return CloudSettings.load(config)
