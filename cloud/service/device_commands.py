"""Commands of devices: `vedette cloud devices`, with --revoke, and `vedette cloud devices remove`."""

import asyncio
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud.outputs import failure_as_json, write_json
from cloud.service.command_options import Config, in_store
from shared.cli import CommandTree

if TYPE_CHECKING:
    from cloud.devices import DeviceView
    from cloud.store import Store

REMOVAL_PAUSE_S = 0.5
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result, or the failure, as JSON to this file.")
]


def add_commands(tree: CommandTree) -> None:
    """Add the commands to the tree."""
    group = typer.Typer(invoke_without_command=True, rich_markup_mode="rich")
    group.callback(
        epilog="Examples: [bold]vedette cloud devices --json devices.json --config cloud.toml[/bold], "
        "[bold]vedette cloud devices --revoke press-07 --config cloud.toml[/bold]"
    )(devices)
    group.command(
        epilog="Examples: [bold]vedette cloud devices remove press-07 --config cloud.toml[/bold], "
        "[bold]vedette cloud devices remove press-07 --keep-verdicts --config cloud.toml[/bold]"
    )(remove)
    tree.group("cloud").add_typer(group, name="devices")


def devices(
    context: typer.Context,
    revoke: Annotated[str | None, typer.Option("--revoke", help="Revoke the certificate of this device.")] = None,
    json_path: Json = None,
    config: Config = None,
) -> None:
    """List the devices as the console shows them, or revoke one: a running service ends its calls within seconds."""
    if context.invoked_subcommand is not None:
        return
    from cloud.devices import late_after_s, read_devices
    from cloud.service.data_dir import service_runs
    from cloud.service.device_list import show_devices
    from cloud.settings import CloudSettings
    from cloud.store.fleet import revoke as revoke_device

    with failure_as_json(json_path):
        settings, now_s = CloudSettings.load(config), time.time()

        async def work(store: "Store") -> "list[DeviceView]":
            if revoke is not None:
                await revoke_device(store, revoke)
            async with store.reading() as connection:
                return await read_devices(connection, now_s=now_s, late_after_s=late_after_s(settings.heartbeat_s))

        found = in_store(config, work)
        runs = service_runs(settings.store)
        # The file first: the reader of the list may close its pipe.
        write_json(
            json_path,
            {"now_s": now_s, "service_runs": runs, "devices": [device.model_dump(mode="json") for device in found]},
        )
        show_devices(found, now_s, runs)


def remove(
    device_id: Annotated[str, typer.Argument(help="Id of an enrolled device.")],
    keep_verdicts: Annotated[
        bool, typer.Option("--keep-verdicts", help="Keep its verdicts, labels and maps; delete payloads and the rest.")
    ] = False,
    json_path: Json = None,
    config: Config = None,
) -> None:
    """Revoke a device and delete its data; the service deletes what is left when the command ends."""
    from cloud.service.data_dir import service_runs
    from cloud.settings import CloudSettings
    from cloud.store.removal import GRACE_S, begin_removal, delete_data

    with failure_as_json(json_path):
        runs = service_runs(CloudSettings.load(config).store)
        # One that may run on another machine counts as running; without it the rest would never be judged.
        wait_s = {True: math.inf, None: GRACE_S + REMOVAL_PAUSE_S, False: 0.0}[runs]

        async def work(store: "Store") -> bool:
            removal = await begin_removal(store, device_id, keep_verdicts=keep_verdicts)
            until_s = time.monotonic() + wait_s
            while not (done := await delete_data(store, removal, service_runs=runs is not False)):
                if time.monotonic() >= until_s:
                    break
                await asyncio.sleep(REMOVAL_PAUSE_S)
            return done

        done = in_store(config, work)
        write_json(json_path, {"device_id": device_id, "keep_verdicts": keep_verdicts, "done": done})
        if done:
            typer.echo(f"{device_id}: removed{', its verdicts are kept' if keep_verdicts else ' with its data'}.")
        elif runs is None and not keep_verdicts:
            typer.echo(f"{device_id}: removed; the service judges its waiting samples first, then deletes the rest.")
        else:
            typer.echo(f"{device_id}: removed; samples without a verdict get it when the service runs.")
