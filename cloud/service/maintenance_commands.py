"""Commands that care for a service: `vedette cloud backup | restore | doctor`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cloud.outputs import failure_as_json, write_json
from cloud.service.command_options import Config
from shared.cli import CommandTree

JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the checks, or the failure, as JSON to this file.")
]

DeepOption = Annotated[
    bool, typer.Option("--deep", help="Compare all rows with the payload store; default: a sample of 100 segments.")
]


def add_commands(tree: CommandTree) -> None:
    """Add the commands to the tree."""
    cloud = tree.group("cloud")
    cloud.command(epilog="Example: [bold]vedette cloud backup monday.tar --config cloud.toml[/bold]")(backup)
    cloud.command(epilog="Example: [bold]vedette cloud restore monday.tar --config cloud.toml[/bold]")(restore)
    cloud.command(
        epilog="Examples: [bold]vedette cloud doctor --config cloud.toml[/bold], "
        "[bold]vedette cloud doctor --json checks.json --config cloud.toml[/bold]"
    )(doctor)


def backup(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="New archive; it holds the authority's secret key.")],
    config: Config = None,
) -> None:
    """Write store, bundles and certificate authority into one archive; the service may run meanwhile."""
    from cloud.service.authority import Authority
    from cloud.service.backup import make_backup
    from cloud.service.data_dir import start_wait_s, wait_for_store
    from cloud.settings import CloudSettings

    settings = CloudSettings.load(config)
    wait_for_store(settings.store, start_wait_s(config))
    made = make_backup(settings.store, path)
    if made.missing_segments:
        typer.echo(
            f"WARNING: the payload store has lost {made.missing_segments} segments that the store names; their samples "
            "come back without pictures or readings.",
            err=True,
        )
    if not Authority.exists(settings.data_dir):
        typer.echo(f"{path}: {made.bytes / 2**20:.1f} MiB.")
        typer.echo(
            f"WARNING: {settings.data_dir} has no pki/, so the backup holds no certificate authority: after a restore "
            "every device must enrol again. Make the backup on a machine of the service that has pki/.",
            err=True,
        )
        return
    typer.echo(f"{path}: {made.bytes / 2**20:.1f} MiB, with the authority's secret key: keep it as safe as data_dir.")


def restore(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Archive of vedette cloud backup.")],
    config: Config = None,
) -> None:
    """Make the data directory and the store that the settings name from a backup; neither may exist before.

    A backup of a SQLite store can be restored into PostgreSQL, and the reverse.
    """
    from cloud.service.backup import restore_backup
    from cloud.settings import CloudSettings
    from cloud.words import moment_words

    settings = CloudSettings.load(config)
    facts = restore_backup(settings.store, path)
    typer.echo(f"{settings.store}: restored the state of {moment_words(facts.made_at_s)}.")


def doctor(config: Config = None, json_path: JsonOption = None, deep: DeepOption = False) -> None:
    """Check store, payloads, bundles, keys, clocks and disk of a service, which may run.

    A probe object in the payload store, doctor-*, is written and removed; nothing else changes.
    """
    from cloud.service.checks import FAILED
    from cloud.service.data_dir import start_wait_s, wait_for_store
    from cloud.service.doctor import examine
    from cloud.settings import CloudSettings
    from shared.errors import StorageError

    with failure_as_json(json_path):
        settings = CloudSettings.load(config)
        wait_for_store(settings.store, start_wait_s(config))
        checks = examine(settings, deep=deep)
        write_json(json_path, {"checks": [asdict(check) for check in checks]})
        width = max(len(check.name) for check in checks)
        for check in checks:
            typer.echo(f"{check.state:7}  {check.name:{width}}  {check.detail}")
    failed = [check.name for check in checks if check.state == FAILED]
    if failed:
        raise StorageError(
            f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}. The lines above say why."
        )
