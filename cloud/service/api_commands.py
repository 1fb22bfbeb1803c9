"""Commands for other programs: `vedette cloud api-token | audit | export`."""

import secrets
import time
from collections.abc import Awaitable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cloud.outputs import failure_as_json, write_json
from cloud.service.command_options import Config, in_store
from shared.cli import CommandTree

if TYPE_CHECKING:
    from cloud.store import Store
    from cloud.store.api_tokens import ApiToken, Scope

T = TypeVar("T")
DAY_S = 86_400.0
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here as JSON.")]


def add_commands(tree: CommandTree) -> None:
    """Add the commands to the tree."""
    cloud = tree.group("cloud")
    cloud.command(
        "api-token",
        epilog="Examples: [bold]vedette cloud api-token --name CI --scopes verdicts:read,labels:write --days 90 "
        "--config cloud.toml[/bold], [bold]vedette cloud api-token --revoke k3m9xq2v7ta4 --config cloud.toml[/bold]",
    )(api_token)
    cloud.command(
        epilog="Example: [bold]vedette cloud audit --action device.revoked --from 2026-11-01 --config cloud.toml[/bold]"
    )(audit)
    cloud.command(
        epilog="Examples: [bold]vedette cloud export --output november --from 2026-11-01 --to 2026-12-01 "
        "--config cloud.toml[/bold], [bold]vedette cloud export --output labelled --labelled --payloads "
        "--config cloud.toml[/bold]"
    )(export)


def api_token(
    name: Annotated[str | None, typer.Option("--name", help="Name of the client, for the list and the log.")] = None,
    scopes: Annotated[
        str | None, typer.Option("--scopes", metavar="SCOPE,...", help="Rights, such as verdicts:read,labels:write.")
    ] = None,
    days: Annotated[float, typer.Option("--days", min=0.001, max=3660, help="Days until it expires.")] = 90.0,
    list_all: Annotated[bool, typer.Option("--list", help="List the tokens with their last use.")] = False,
    revoke: Annotated[str | None, typer.Option("--revoke", metavar="ID", help="Revoke the token at once.")] = None,
    config: Config = None,
    json_path: Json = None,
) -> None:
    """Make a token for the HTTP API and print it once; or list the tokens, or revoke one."""
    from cloud.store.api_tokens import add_api_token, list_api_tokens, new_token_id, revoke_api_token, token_text
    from shared.errors import SettingsError

    with failure_as_json(json_path):
        if (name is not None) + list_all + (revoke is not None) != 1:
            raise SettingsError("Give one of them: --name with --scopes, --list, or --revoke ID.")
        if (name is None) != (scopes is None):
            raise SettingsError("--name and --scopes belong together: give both to make a token.")
        if name is not None:
            rights, secret = _scopes(scopes or ""), secrets.token_urlsafe(32)
            token_id = new_token_id()
            values: dict[str, Any] = {"name": _name(name), "scopes": rights, "expires_at_s": time.time() + days * DAY_S}
            made = in_store(config, lambda store: add_api_token(store, token_id, secret, **values))
            text = token_text(token_id, secret)
            write_json(json_path, _figures(made) | {"token": text})
            typer.echo(text)
            return
        if revoke is not None:
            revoked = revoke
            in_store(config, lambda store: revoke_api_token(store, revoked))
        tokens = in_store(config, list_api_tokens)
        write_json(json_path, {"tokens": [_figures(token) for token in tokens]})
        for token in tokens:
            typer.echo(_line(token, time.time()))


def audit(
    actor: Annotated[str, typer.Option("--actor", help="Only changes of this actor, such as user:ada.")] = "",
    action: Annotated[str, typer.Option("--action", help="Only this kind, such as device.revoked.")] = "",
    subject: Annotated[str, typer.Option("--subject", help="Only changes of this device, bundle, key ...")] = "",
    since: Annotated[str, typer.Option("--from", metavar="TIME", help="Only from this date or RFC 3339 time on.")] = "",
    until: Annotated[str, typer.Option("--to", metavar="TIME", help="Only before this date or time.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="Largest number of entries.")] = 50,
    config: Config = None,
    json_path: Json = None,
) -> None:
    """List the changes of the service's state, newest first."""
    from cloud.moments import parse_moment, rfc3339
    from cloud.store.audit import AuditAction, AuditFilter, audit_page
    from shared.errors import SettingsError

    with failure_as_json(json_path):
        if action and action not in list(AuditAction):
            raise SettingsError(f"--action {action!r} is not known: use one of {', '.join(AuditAction)}.")
        times = (parse_moment(text) if text else None for text in (since, until))
        wanted = AuditFilter(actor, action, subject, *times)

        async def read(store: "Store") -> list[dict[str, Any]]:
            async with store.reading() as connection:
                found = await audit_page(connection, wanted, size=limit)
            return [asdict(entry) | {"at": rfc3339(entry.at_s)} for entry in found]

        entries = in_store(config, read)
        write_json(json_path, {"entries": entries})
        for entry in entries:
            details = "  ".join(f"{key}={value}" for key, value in entry["details"].items())
            typer.echo(f"{entry['at']}  {entry['action']}  {entry['subject']}  by {entry['actor']}  {details}".rstrip())


def export(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="New or empty folder.")],
    since: Annotated[str, typer.Option("--from", metavar="TIME", help="Judged at this date or RFC 3339 time on.")] = "",
    until: Annotated[str, typer.Option("--to", metavar="TIME", help="Judged before this date or time.")] = "",
    labelled: Annotated[bool, typer.Option("--labelled", help="Only samples that have a label.")] = False,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Only samples whose newest label is this: real, false_alarm, missed, unsure; repeatable."),
    ] = None,
    payloads: Annotated[bool, typer.Option("--payloads", help="Also write the payloads of labelled samples.")] = False,
    config: Config = None,
    json_path: Json = None,
) -> None:
    """Write verdicts and labels as Parquet files, in the order of their judgement."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from cloud.moments import parse_moment
    from cloud.service.export import ExportCounts
    from cloud.service.export import export as write
    from cloud.store.export_queries import ExportSelection

    with failure_as_json(json_path):
        until_s = parse_moment(until) if until else time.time()
        chosen = tuple(_label(name) for name in label or ())
        wanted = ExportSelection(parse_moment(since) if since else None, until_s, labelled, chosen)
        columns = (TextColumn("exporting"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=1.0)

            def work(store: "Store") -> "Awaitable[ExportCounts]":
                show = partial(bar.update, task)
                return write(
                    store, output, wanted, with_payloads=payloads, on_share=lambda share: show(completed=share)
                )

            counts = in_store(config, work)
        write_json(json_path, asdict(counts))
        files = f", {counts.payloads} payloads ({counts.payloads_left_out} expired or damaged)" if payloads else ""
        typer.echo(f"{output}: {counts.verdicts} verdicts, {counts.labels} labels{files}")


def _scopes(text: str) -> "list[Scope]":
    """Return the scopes of a list with commas; raises SettingsError for an unknown one."""
    from cloud.store.api_tokens import Scope
    from shared.errors import SettingsError

    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in list(Scope)]
    if unknown or not names:
        first = f"{unknown[0]!r} is not a scope" if unknown else "no scope is given"
        raise SettingsError(f"--scopes: {first}. Use some of {', '.join(Scope)}.")
    return [scope for scope in Scope if scope in names]


def _label(name: str) -> str:
    from cloud.store.labels import Label
    from shared.errors import SettingsError

    if name not in list(Label):
        raise SettingsError(f"--label: {name!r} is not a label. Use some of {', '.join(Label)}.")
    return name


def _name(name: str) -> str:
    from cloud.store.api_tokens import MAX_NAME_CHARACTERS
    from shared.errors import SettingsError

    if not 0 < len(name.strip()) <= MAX_NAME_CHARACTERS or not name.isprintable():
        raise SettingsError(f"--name: write 1 to {MAX_NAME_CHARACTERS} printable characters.")
    return name.strip()


def _figures(token: "ApiToken") -> dict[str, Any]:
    return asdict(token)


def _line(token: "ApiToken", now_s: float) -> str:
    from cloud.moments import rfc3339

    state = "revoked" if token.revoked_at_s is not None else "valid" if token.is_valid(now_s) else "expired"
    used = rfc3339(token.last_used_at_s) if token.last_used_at_s is not None else "never"
    scopes = ",".join(token.scopes)
    expires = rfc3339(token.expires_at_s)
    return f"{token.token_id}  {token.name}  {state}  {scopes}  expires {expires}  last used {used}"
