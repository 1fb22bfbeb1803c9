"""Commands of sites and groups: `vedette cloud group set | release`."""

import time
from typing import Annotated

import typer

from cloud.service.command_options import Config, in_store
from shared.cli import CommandTree


def add_commands(tree: CommandTree) -> None:
    """Add the commands to the tree."""
    groups = typer.Typer(
        help="Sites and groups of devices, and the bundles of a group.", no_args_is_help=True, rich_markup_mode="rich"
    )
    groups.command("set", epilog="Example: [bold]vedette cloud group set press-07 --site hull --group presses[/bold]")(
        set_place_of
    )
    groups.command(
        epilog="Examples: [bold]vedette cloud group release press --group presses --config cloud.toml[/bold], "
        "[bold]vedette cloud group release press --all --config cloud.toml[/bold]"
    )(release)
    tree.group("cloud").add_typer(groups, name="group")


def set_place_of(
    device_ids: Annotated[list[str], typer.Argument(metavar="DEVICE...", help="Ids of enrolled devices.")],
    site: Annotated[str | None, typer.Option(help="New site. Default: unchanged.")] = None,
    group: Annotated[str | None, typer.Option(help="New group. Default: unchanged.")] = None,
    config: Config = None,
) -> None:
    """Move devices to a site, a group or both; their next heartbeats name the bundles of the new group."""
    from cloud.service.tokens import check_place
    from cloud.store.fleet import Place, set_place
    from shared.errors import SettingsError

    place = Place(site, group)
    if not place.columns():
        raise SettingsError("Give --site, --group or both.")
    check_place(place)
    in_store(config, lambda store: set_place(store, device_ids, place))
    words = [f"{word} {name}" for word, name in (("site", site), ("group", group)) if name is not None]
    for device_id in device_ids:
        typer.echo(f"{device_id}: {', '.join(words)}")


def release(
    name: Annotated[str, typer.Argument(help="Name of the bundles.")],
    groups: Annotated[
        list[str] | None, typer.Option("--group", help="Group that gets the bundles; give it once for each group.")
    ] = None,
    to_all: Annotated[bool, typer.Option("--all", help="Release to all groups, as a new name is.")] = False,
    config: Config = None,
) -> None:
    """Release the bundles of a name to these groups only; devices of other groups keep what they run."""
    from cloud.service.tokens import check_place
    from cloud.store import releases
    from cloud.store.fleet import Place
    from shared.errors import SettingsError

    if bool(groups) == to_all:
        raise SettingsError("Give one of them: --group, or --all.")
    for group in groups or ():
        check_place(Place(group=group))
    in_store(config, lambda store: releases.release(store, name, set(groups or ()), time.time()))
    typer.echo(f"{name}: released to {'all groups' if to_all else ', '.join(sorted(set(groups or ())))}")
