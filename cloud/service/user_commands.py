"""Commands of accounts: `vedette cloud user add | list | role | password | disable | end-sessions | link`."""

import secrets
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cloud.outputs import failure_as_json, write_json
from cloud.service.command_options import Config, in_store
from shared.cli import CommandTree

if TYPE_CHECKING:
    from cloud.settings import CloudSettings
    from cloud.store import Store
    from cloud.store.account_links import LinkPurpose
    from cloud.store.users import User

RoleText = Literal["viewer", "operator", "admin"]
Name = Annotated[str, typer.Argument(help="Name of the account.", callback=lambda text: text.strip().lower())]
Role = Annotated[RoleText, typer.Option("--role", help="viewer looks, operator labels, admin changes everything.")]
Sites = Annotated[list[str] | None, typer.Option("--site", help="Only this site; repeatable. Default: all sites.")]
FromInput = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input, in place of a link.")
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here as JSON.")]


def add_commands(tree: CommandTree) -> None:
    """Add the commands to the tree."""
    users = typer.Typer(help="Accounts of people in the console.", no_args_is_help=True, rich_markup_mode="rich")
    examples: dict[Callable[..., None], str] = {
        add: "add ada --role operator",
        list_all: "list --json users.json",
        role: "role ada --role viewer --site hull",
        password: "password ada --password-stdin < secret",
        disable: "disable ada",
        end_sessions: "end-sessions ada",
        link: "link ada --sign-in",
    }
    for command, example in examples.items():
        words = f"Example: [bold]vedette cloud user {example} --config cloud.toml[/bold]"
        users.command(example.partition(" ")[0], epilog=words)(command)
    tree.group("cloud").add_typer(users, name="user")


def add(
    name: Name,
    role: Role = "viewer",
    site: Sites = None,
    password_stdin: FromInput = False,
    config: Config = None,
    json_path: Json = None,
) -> None:
    """Add an account, and print a one-time link that sets its password."""
    from cloud.store.account_links import LinkPurpose
    from cloud.store.users import add_user
    from cloud.user_roles import UserRole

    with failure_as_json(json_path):
        name = _new_name(name)
        hashed = _hash_of_input(config, name) if password_stdin else None

        async def work(store: "Store") -> None:
            async with store.writing() as connection:
                await add_user(
                    connection, name, UserRole(role), actor=store.actor, sites=_sites(site), password_hash=hashed
                )

        in_store(config, work)
        url = "" if password_stdin else _make_link(config, name, LinkPurpose.PASSWORD)
        write_json(json_path, {"name": name, "role": role, "sites": _sites(site), "link": url or None})
        typer.echo(url or f"{name}: added")


def list_all(config: Config = None, json_path: Json = None) -> None:
    """List the accounts with their roles, sites and last sign-in."""
    from cloud.store.users import list_users

    with failure_as_json(json_path):
        found = in_store(config, list_users)
        write_json(json_path, {"users": [asdict(user) for user in found]})
        for user in found:
            typer.echo(_line(user))


def role(
    name: Name,
    role: Role,
    site: Sites = None,
    all_sites: Annotated[bool, typer.Option("--all-sites", help="No restriction to sites any more.")] = False,
    config: Config = None,
    json_path: Json = None,
) -> None:
    """Change the role of an account, and its sites if they are given; its sessions end."""
    from cloud.store.users import set_role
    from cloud.user_roles import UserRole
    from shared.errors import SettingsError

    with failure_as_json(json_path):
        if site and all_sites:
            raise SettingsError("Give one of them: --site, or --all-sites.")
        sites = _sites(site) if site or all_sites else None
        in_store(config, lambda store: set_role(store, name, UserRole(role), sites))
        write_json(json_path, {"name": name, "role": role})
        typer.echo(f"{name}: {role}")


def password(name: Name, password_stdin: FromInput = False, config: Config = None, json_path: Json = None) -> None:
    """Print a one-time link that sets another password; or set the one on standard input, which ends all sessions."""
    from cloud.store.account_links import LinkPurpose
    from cloud.store.users import change_password, known

    with failure_as_json(json_path):
        url = ""
        if password_stdin:
            hashed = _hash_of_input(config, name)

            async def work(store: "Store") -> None:
                async with store.writing() as connection:
                    await known(connection, name)
                    await change_password(connection, name, hashed, actor=store.actor)

            in_store(config, work)
        else:
            url = _make_link(config, name, LinkPurpose.PASSWORD)
        write_json(json_path, {"name": name, "link": url or None})
        typer.echo(url or f"{name}: the password has been set")


def disable(
    name: Name,
    undo: Annotated[bool, typer.Option("--undo", help="Enable the account again.")] = False,
    config: Config = None,
    json_path: Json = None,
) -> None:
    """Disable an account: its sessions end at once, and it cannot sign in."""
    from cloud.store.users import set_disabled

    with failure_as_json(json_path):
        in_store(config, lambda store: set_disabled(store, name, disabled=not undo))
        write_json(json_path, {"name": name, "disabled": not undo})
        typer.echo(f"{name}: {'enabled' if undo else 'disabled'}")


def end_sessions(name: Name, config: Config = None, json_path: Json = None) -> None:
    """End all sessions of an account."""
    from cloud.store.sessions import end_sessions as end
    from cloud.store.users import known

    async def work(store: "Store") -> int:
        async with store.reading() as connection:
            await known(connection, name)
        return await end(store, name, actor=store.actor, reason="ended by a command")

    with failure_as_json(json_path):
        count = in_store(config, work)
        write_json(json_path, {"name": name, "sessions": count})
        typer.echo(f"{name}: {count} sessions ended")


def link(
    name: Name,
    sign_in: Annotated[bool, typer.Option("--sign-in", help="Sign in by the link, without a new password.")] = False,
    valid_s: Annotated[
        float | None, typer.Option("--valid-s", min=1.0, help="Seconds until it expires. Default: link_valid_s.")
    ] = None,
    config: Config = None,
    json_path: Json = None,
) -> None:
    """Print a one-time link that sets a password, or that signs in. Give it to the person alone: it is a secret."""
    from cloud.store.account_links import LinkPurpose

    with failure_as_json(json_path):
        purpose = LinkPurpose.SIGN_IN if sign_in else LinkPurpose.PASSWORD
        url = _make_link(config, name, purpose, valid_s)
        write_json(json_path, {"name": name, "purpose": purpose, "link": url})
        typer.echo(url)


def _make_link(config: Path | None, name: str, purpose: "LinkPurpose", valid_s: float | None = None) -> str:
    from cloud.service.people import console_url, link_url
    from cloud.store.account_links import add_link

    settings, secret = _settings(config), secrets.token_urlsafe(32)
    seconds = valid_s or settings.accounts.link_valid_s
    in_store(config, lambda store: add_link(store, secret, purpose, valid_s=seconds, user_name=name))
    return link_url(settings, console_url(settings), secret)


def _hash_of_input(config: Path | None, name: str) -> str:
    """Return the hash of the password in the first line of standard input; raises SettingsError."""
    import asyncio

    from cloud.accounts.passwords import Passwords, password_problem
    from shared.errors import SettingsError

    text = sys.stdin.readline().rstrip("\r\n")
    if problem := password_problem(text, name):
        raise SettingsError(problem)

    async def work() -> str:
        return await Passwords(_settings(config).accounts).hash(text)

    return asyncio.run(work())


def _new_name(text: str) -> str:
    from cloud.store.users import NAME, NAME_RULE
    from shared.errors import SettingsError

    if not NAME.fullmatch(text):
        raise SettingsError(NAME_RULE)
    return text


def _sites(names: list[str] | None) -> list[str]:
    from cloud.enrolment import check_place
    from cloud.store.fleet import Place

    for name in names or ():
        check_place(Place(site=name))
    return sorted(set(names or ()))


def _settings(config: Path | None) -> "CloudSettings":
    from cloud.settings import CloudSettings

    return CloudSettings.load(config)


def _line(user: "User") -> str:
    from cloud.moments import rfc3339

    facts: dict[str, Any] = {
        "sites": ",".join(user.sites) or "all",
        "signed in": rfc3339(user.signed_in_at_s) if user.signed_in_at_s is not None else "never",
    }
    state = "disabled" if user.disabled_at_s is not None else "provider" if user.subject else "enabled"
    return "  ".join([user.name, user.role, state, *(f"{name} {value}" for name, value in facts.items())])
