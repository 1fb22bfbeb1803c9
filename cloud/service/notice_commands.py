"""Commands of notices: `vedette cloud notices`, and `vedette cloud notices test`."""

import contextlib
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud.outputs import failure_as_json, write_json
from cloud.service.command_options import Config, in_store
from shared.cli import CommandTree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud.store import Store
    from cloud.store.notices import StoredNotice

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON to this file.")]


def add_commands(tree: CommandTree) -> None:
    """Add the commands to the tree."""
    group = typer.Typer(invoke_without_command=True, rich_markup_mode="rich")
    group.callback(epilog="Example: [bold]vedette cloud notices --all --json notices.json --config cloud.toml[/bold]")(
        notices
    )
    group.command("test", epilog="Example: [bold]vedette cloud notices test --sink mail --config cloud.toml[/bold]")(
        try_sinks
    )
    tree.group("cloud").add_typer(group, name="notices")


def notices(
    context: typer.Context,
    show_all: Annotated[bool, typer.Option("--all", help="Also show closed notices.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Largest number of notices.")] = 100,
    json_path: Json = None,
    config: Config = None,
) -> None:
    """List the open notices, newest first, and the messages that wait for a sink."""
    if context.invoked_subcommand is not None:
        return
    from cloud.moments import with_rfc3339
    from cloud.store.notices import NoticeFilter, notice_page
    from cloud.store.outbox import waiting
    from cloud.words import moment_words

    wanted = NoticeFilter(is_open=None if show_all else True)

    async def work(store: "Store") -> "tuple[Sequence[StoredNotice], dict[str, tuple[int, str]]]":
        async with store.reading() as connection:
            return await notice_page(connection, wanted, size=limit), await waiting(connection)

    with failure_as_json(json_path):
        found, queues = in_store(config, work)
        sinks = {sink: {"waiting": count, "error": error} for sink, (count, error) in queues.items()}
        write_json(json_path, {"notices": [with_rfc3339(asdict(notice)) for notice in found], "sinks": sinks})
        for notice in found:
            end = "" if notice.closed_at_s is None else f", closed {moment_words(notice.closed_at_s)}"
            typer.echo(f"{moment_words(notice.opened_at_s)}{end}  {notice.kind}: {notice.text}")
        for sink, (count, error) in queues.items():
            typer.echo(f"{count} messages wait for sink {sink}{f': {error}' if error else ''}")
        if not found:
            typer.echo("No notice." if show_all else "No open notice.")


def try_sinks(
    sink: Annotated[str | None, typer.Option(help="Id of the only sink to test.")] = None,
    json_path: Json = None,
    config: Config = None,
) -> None:
    """Send a test message to each sink of [notices], and print whether it was accepted."""
    from cloud.moments import rfc3339
    from cloud.service.notices.sinks import open_sink
    from cloud.settings import CloudSettings
    from shared.errors import DataError, SettingsError, VedetteError

    with failure_as_json(json_path):
        chosen = [each for each in CloudSettings.load(config).notices.sinks if sink in (None, each.id)]
        if not chosen:
            raise SettingsError("No such sink: add a table [[notices.sinks]] to the settings, or correct --sink.")
        results: dict[str, str] = {}
        for each in chosen:
            text = f"Test message to the sink {each.id}."
            message = {"event": "test", "delivery_id": str(uuid.uuid4()), "text": text, "sent_at": rfc3339(time.time())}
            try:
                with contextlib.closing(open_sink(each)) as opened:
                    opened.send(message)
                results[each.id] = ""
            except VedetteError as error:
                results[each.id] = str(error)
            typer.echo(f"{each.id}: {results[each.id] or 'accepted'}")
        write_json(json_path, {"sinks": results})
        if failed := [name for name, error in results.items() if error]:
            raise DataError(f"{len(failed)} of {len(results)} sinks did not accept the message: {', '.join(failed)}.")
