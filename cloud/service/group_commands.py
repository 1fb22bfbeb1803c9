"""Commands of sites and groups: `vedette cloud group set | release | settings`."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud.outputs import failure_as_json, write_json
from cloud.service.command_options import Config, in_store
from shared.cli import CommandTree

if TYPE_CHECKING:
    from cloud.store import Store
    from cloud.store.group_settings import GroupState


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
    groups.command(
        epilog="Examples: [bold]vedette cloud group settings presses --false-alarms-per-day 2 --audit-share 0.02 "
        "--config cloud.toml[/bold], [bold]vedette cloud group settings presses --unset audit_share "
        "--config cloud.toml[/bold]"
    )(settings)
    tree.group("cloud").add_typer(groups, name="group")


def set_place_of(
    device_ids: Annotated[list[str], typer.Argument(metavar="DEVICE...", help="Ids of enrolled devices.")],
    site: Annotated[str | None, typer.Option(help="New site. Default: unchanged.")] = None,
    group: Annotated[str | None, typer.Option(help="New group. Default: unchanged.")] = None,
    config: Config = None,
) -> None:
    """Move devices to a site, a group or both; their next heartbeats name the bundles of the new group."""
    from cloud.enrolment import check_place
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
    from cloud.enrolment import check_place
    from cloud.store import releases
    from cloud.store.fleet import Place
    from shared.errors import SettingsError

    if bool(groups) == to_all:
        raise SettingsError("Give one of them: --group, or --all.")
    for group in groups or ():
        check_place(Place(group=group))
    in_store(config, lambda store: releases.release(store, name, set(groups or ()), time.time()))
    typer.echo(f"{name}: released to {'all groups' if to_all else ', '.join(sorted(set(groups or ())))}")


def settings(
    group: Annotated[str | None, typer.Argument(help="Group to change. Default: list all groups.")] = None,
    false_alarms_per_day: Annotated[
        float | None, typer.Option(help="Local alarms that a source may raise in a day of normal data.")
    ] = None,
    audit_share: Annotated[
        float | None, typer.Option(help="Share of accepted samples that are sent anyway, 0 to 1.")
    ] = None,
    max_samples_per_s: Annotated[
        float | None, typer.Option(help="Samples a second over all sources of a device; 0: no limit.")
    ] = None,
    max_bytes_per_s: Annotated[
        float | None, typer.Option(help="Bytes a second over all sources of a device; 0: no limit.")
    ] = None,
    max_miss_rate: Annotated[
        float | None,
        typer.Option(help="Share of anomalies that may stay, 0 to 0.5: sets the forward threshold; 0: off."),
    ] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Setting that returns to the value of each device's own file."),
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the groups as JSON.")] = None,
    config: Config = None,
) -> None:
    """List the settings of all groups, or change those of one: its devices apply them while they run."""
    from cloud.enrolment import check_place
    from cloud.store.fleet import Place
    from cloud.store.group_settings import change_settings, group_states
    from shared.errors import SettingsError
    from shared.group_settings import GroupSettings

    options = {
        "false_alarms_per_day": false_alarms_per_day,
        "audit_share": audit_share,
        "max_samples_per_s": max_samples_per_s,
        "max_bytes_per_s": max_bytes_per_s,
        "max_miss_rate": max_miss_rate,
    }
    with failure_as_json(json_path):
        given, removed = GroupSettings.checked(options), set(unset or ())
        if unknown := removed - set(options):
            raise SettingsError(f"--unset {min(unknown)}: no such setting. There are: {', '.join(options)}.")
        if (group is None) == bool(given.given() or removed):
            raise SettingsError("Give a group together with the settings to change, or neither for the list.")
        if removed & given.given().keys():
            raise SettingsError("Give a setting its value or --unset, not both.")

        async def work(store: "Store") -> "list[GroupState]":
            if group is not None:
                check_place(Place(group=group))
                await change_settings(store, group, given, unset=removed)
            async with store.reading() as connection:
                return await group_states(connection)

        found = [state for state in in_store(config, work) if group in (None, state.group)]
        write_json(json_path, {"groups": [asdict(state) | {"settings": state.settings.given()} for state in found]})
        for state in found:
            refusing = f", {state.refusing} refuse them" if state.refusing else ""
            follow = f"{state.following} of {state.devices} devices follow{refusing}"
            typer.echo(f"{state.group}: {state.settings.words()}; {follow}")
