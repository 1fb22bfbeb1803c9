"""Commands of the keys that may sign bundles: `vedette cloud keys add | retire | list`."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cloud.outputs import failure_as_json, write_json
from cloud.service.command_options import Config
from shared.cli import CommandTree

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from cloud.service.signing_keys import SigningKeys
    from shared.key_sets import KeySet

T = TypeVar("T")
PUBLIC_SUFFIX = ".pub"
SigningKey = Annotated[
    Path | None,
    typer.Option(
        metavar="PEM", help="Private half of a trusted key; it signs the new set. Default: $VEDETTE_HOME/signing.pem."
    ),
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here as JSON.")]


def add_commands(tree: CommandTree) -> None:
    """Add the commands to the tree."""
    keys = typer.Typer(
        help="Add, retire and list the keys that may sign bundles.", no_args_is_help=True, rich_markup_mode="rich"
    )
    keys.command(
        epilog="Examples: [bold]vedette cloud keys add --new signing-2.pem --config cloud.toml[/bold], "
        "[bold]vedette cloud keys add bundle_key-2.pem --config cloud.toml[/bold]"
    )(add)
    keys.command(epilog="Example: [bold]vedette cloud keys retire h3k5mzq2v7ta --config cloud.toml[/bold]")(retire)
    keys.command("list", epilog="Example: [bold]vedette cloud keys list --config cloud.toml[/bold]")(list_keys)
    tree.group("cloud").add_typer(keys, name="keys")


def add(
    key: Annotated[Path | None, typer.Argument(help="PEM of the public key, or of the private one.")] = None,
    new: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Make a private key in this file, and its public half beside it (.pub)."),
    ] = None,
    signing_key: SigningKey = None,
    config: Config = None,
    json_path: Json = None,
) -> None:
    """Trust another key: devices learn it with their next heartbeat."""
    from shared.errors import SettingsError
    from shared.home import signing_key_path
    from shared.signing_keys import load_signing_key

    with failure_as_json(json_path):
        if (key is None) == (new is None):
            raise SettingsError("Give one of them: the file of a key, or --new FILE.")
        private = load_signing_key(signing_key_path(signing_key))

        def add_to(keys: "SigningKeys") -> "Awaitable[KeySet]":
            return keys.add(_make_key(new) if new is not None else _public_key(Path(str(key))), private)

        added = _change(config, add_to)
        _finish(added, f"{added.key_ids[-1]} is trusted", json_path)


def retire(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, as vedette cloud keys list shows it.")],
    force: Annotated[
        bool, typer.Option("--force", help="Retire it although devices have not confirmed the other keys.")
    ] = False,
    signing_key: SigningKey = None,
    config: Config = None,
    json_path: Json = None,
) -> None:
    """Trust a key no longer: bundles that it signed are refused by the service and its devices."""
    from shared.home import signing_key_path
    from shared.signing_keys import load_signing_key

    with failure_as_json(json_path):
        private = load_signing_key(signing_key_path(signing_key))
        kept = _change(config, lambda keys: keys.retire(key_id, private, force=force))
        _finish(kept, f"{key_id} is retired", json_path)


def list_keys(config: Config = None, json_path: Json = None) -> None:
    """List the trusted keys: since when, on how many devices, and the current bundles that they signed."""
    with failure_as_json(json_path):
        report = _change(config, lambda keys: keys.report())
        for key in report.keys:
            since = f"since {key.added_at}" if key.added_at else "from the start"
            signs = f"signs {', '.join(key.bundles)}" if key.bundles else "signs no current bundle"
            typer.echo(f"{key.key_id}  {since}  confirmed by {key.devices} of {report.devices} devices  {signs}")
        write_json(json_path, asdict(report))


def _change(config: Path | None, action: "Callable[[SigningKeys], Awaitable[T]]") -> T:
    """Return the result of the action on the keys of the service's data directory."""
    from cloud.service.data_dir import open_existing, start_wait_s
    from cloud.service.signing_keys import SigningKeys
    from cloud.service.trusted_key import trusted_key_for_command
    from cloud.settings import CloudSettings
    from cloud.store import open_store
    from cloud.store.registry import Registry

    settings = CloudSettings.load(config)
    authority = open_existing(settings.store, start_wait_s(config))
    first_key = trusted_key_for_command(settings)

    async def work() -> T:
        async with open_store(settings.store) as store:
            return await action(SigningKeys(store, Registry(store, settings.store, first_key), authority.sha256))

    return asyncio.run(work())


def _finish(key_set: "KeySet", outcome: str, json_path: Path | None) -> None:
    ids = list(key_set.key_ids)
    typer.echo(f"Key {outcome}; trusted keys: {', '.join(ids)} (set {key_set.serial}).")
    result: dict[str, Any] = {"serial": key_set.serial, "keys": ids}
    write_json(json_path, result)


def _make_key(path: Path) -> "Ed25519PublicKey":
    from shared.errors import SettingsError
    from shared.files import write_durably
    from shared.signing_keys import new_signing_key, public_pem

    if path.exists():
        raise SettingsError(f"{path} exists already: give another file, or add that key without --new.")
    public = new_signing_key(path).public_key()
    public_path = path.with_name(path.name + PUBLIC_SUFFIX)
    write_durably(public_path, public_pem(public))
    typer.echo(f"Made {path} (keep it secret) and its public half {public_path}.", err=True)
    return public


def _public_key(path: Path) -> "Ed25519PublicKey":
    from shared.errors import CertificateError
    from shared.signing_keys import load_signing_key, load_trusted_key

    try:
        return load_trusted_key(path)
    except CertificateError:
        if not path.exists():
            raise
        return load_signing_key(path).public_key()
