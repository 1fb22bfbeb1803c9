"""Commands `vedette federated server|run|status`; `vedette federated node` is in `edge`."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud.outputs import check_output_path, failure_as_json, write_json
from shared.addresses import Address
from shared.cli import CommandTree
from shared.errors import CertificateError, ConnectionFailedError
from shared.federation import DEFAULT_ADDRESS, parse_address

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from cloud.federation.superlink import ServerState
    from cloud.settings import CloudSettings

STATE_FOLDER = "federation"

ConfigOption = Annotated[Path | None, typer.Option("--config", help="The cloud.toml of the service.", metavar="FILE")]
StateOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of state, logs and runs. Default: federation in the data directory."),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", help=f"Address of the server. Default: as in --state-dir, else {DEFAULT_ADDRESS}."
    ),
]
AuthorityOption = Annotated[
    Path | None,
    typer.Option("--ca", metavar="PEM", help="Authority of the server's certificate; enables TLS."),
]
JsonOption = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here as JSON.")]


def add_commands(tree: CommandTree) -> None:
    """Add the commands of the server side to the tree."""
    group = tree.group("federated")
    group.command(
        epilog="Examples:  vedette federated server  |  vedette federated server --listen 0.0.0.0:7490 "
        "--certificate server.pem --key server-key.pem --ca ca.pem"
    )(server)
    group.command(epilog="Example:  vedette federated run --bundle-name shuttle --rounds 3 --config cloud.toml")(run)
    group.command(epilog="Example:  vedette federated status --config cloud.toml")(status)


def server(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Address to listen on; port 0 picks a free one.")
    ] = DEFAULT_ADDRESS,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    certificate: Annotated[Path | None, typer.Option(metavar="PEM", help="Certificate of the server.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="Private key of the certificate.")] = None,
    authority: Annotated[
        Path | None, typer.Option("--ca", metavar="PEM", help="Authority that signed the certificate.")
    ] = None,
    known_nodes_only: Annotated[
        bool,
        typer.Option("--known-nodes-only", help="Admit only nodes with a registered key (flwr supernode register)."),
    ] = False,
) -> None:
    """Run the server for federated rounds, Flower's SuperLink, until it is stopped.

    Without certificates it listens on loopback addresses only.
    """
    from cloud.federation.superlink import ServerCertificates, serve

    serve(
        _state_dir(config, state_dir),
        parse_address(listen),
        ServerCertificates.of(certificate, key, authority),
        known_nodes_only=known_nodes_only,
        report=_report,
    )


def run(
    bundle_name: Annotated[str, typer.Option(metavar="NAME", help="Bundle whose head the devices improve.")],
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Number of rounds.")] = 1,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    server: ServerOption = None,
    authority: AuthorityOption = None,
    min_clients: Annotated[int, typer.Option(min=1, help="Smallest number of updates for a round to succeed.")] = 2,
    wait_clients: Annotated[
        int | None, typer.Option(min=1, help="Devices to wait for before the first round. Default: --min-clients.")
    ] = None,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for the server and the devices.")
    ] = 60.0,
    round_s: Annotated[float, typer.Option("--round-timeout", min=1, help="Timeout of a round in seconds.")] = 120.0,
    min_samples: Annotated[int, typer.Option(min=2, help="Smallest number of normal samples per device.")] = 100,
    local_steps: Annotated[int, typer.Option(min=1, max=20_000, help="Gradient steps per device and round.")] = 400,
    learning_rate: Annotated[float, typer.Option(min=1e-7, max=1.0, help="Learning rate on the devices.")] = 5e-4,
    signing_key: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="Key that signs the new bundle. Default: $VEDETTE_HOME/signing.pem."),
    ] = None,
    json_path: JsonOption = None,
) -> None:
    """Run federated rounds: devices train the head of a bundle on their own data; the average is published.

    The new bundle is exported, quantised, checked for parity, calibrated and signed as in training.
    """
    from cloud.federation.rounds import RoundsRequest, run_rounds
    from cloud.federation.superlink import ServerState
    from cloud.service.data_dir import start_wait_s, wait_for_store
    from cloud.settings import CloudSettings
    from shared.supervision import stoppable

    with stoppable(), failure_as_json(json_path):
        settings = CloudSettings.load(config)
        wait_for_store(settings.store, start_wait_s(config))
        state = _state_dir(config, state_dir)
        known = ServerState.read(state) if server is None else None
        request = RoundsRequest(
            bundle_name=bundle_name,
            store=settings.store,
            state_dir=state,
            address=_address(server, known),
            authority=authority or (known.authority if known else None),
            rounds=rounds,
            min_clients=min_clients,
            wait_clients=wait_clients or min_clients,
            wait_s=wait_s,
            round_s=round_s,
            min_samples=min_samples,
            distillation=RoundsRequest.local_training(steps=local_steps, learning_rate=learning_rate),
        )
        report = run_rounds(request, _signing_key(signing_key, settings), report=_report)
        write_json(json_path, report.as_json())


def status(
    config: ConfigOption = None,
    state_dir: StateOption = None,
    server: ServerOption = None,
    authority: AuthorityOption = None,
    json_path: JsonOption = None,
) -> None:
    """Show whether the server answers, the connected devices, and the results of the last runs."""
    from cloud.federation.status import last_runs, server_status
    from cloud.federation.superlink import ServerState

    check_output_path(json_path)
    state = _state_dir(config, state_dir, needs_service=server is None)
    known = ServerState.read(state) if server is None else None
    where = _address(server, known)
    result = server_status(where, authority or (known.authority if known else None))
    result["runs"] = last_runs(state / "runs")
    write_json(json_path, result)
    for run_facts in reversed(result["runs"]):
        outcome = run_facts["outcome"]
        ending = "not ended" if outcome is None else outcome["error"] or f"{len(outcome['rounds'])} rounds done"
        typer.echo(f"run {run_facts['run']}: {ending}")
    for node in result["nodes"]:
        typer.echo(f"node {node['node']}: {node['status']}")
    if not result["answers"]:
        raise ConnectionFailedError(f"No server answers at {where}: start it with vedette federated server.")
    typer.echo(f"server {where}: answers, {sum(node['status'] == 'online' for node in result['nodes'])} nodes online")


def _state_dir(config: Path | None, state_dir: Path | None, *, needs_service: bool = True) -> Path:
    """Return the folder of state as named, else the one in the service's data directory; make nothing.

    Raises SettingsError if no folder is named, and the service that is needed is not there.
    """
    if state_dir is not None:
        return state_dir.absolute()
    from cloud.service.data_dir import start_wait_s, wait_for_store
    from cloud.settings import CloudSettings

    location = CloudSettings.load(config).store
    if needs_service:
        wait_for_store(location, start_wait_s(config))
    return location.data_dir.absolute() / STATE_FOLDER


def _signing_key(path: Path | None, settings: "CloudSettings") -> "Ed25519PrivateKey":
    """Return the signing key; raises CertificateError if it is missing or not trusted by the service."""
    from cloud.store.key_sets import trusted_keys
    from shared import home
    from shared.signing_keys import key_id, load_signing_key

    where = home.signing_key_path(path)
    key = load_signing_key(where)
    first = home.trusted_key(settings.bundle_key) if settings.bundle_key is not None else key.public_key()
    trusted = [key_id(item) for item in asyncio.run(trusted_keys(settings.store, first))]
    if key_id(key.public_key()) not in trusted:
        raise CertificateError(
            f"{where}: not a key that the service trusts ({', '.join(trusted)}): name one of those with --signing-key."
        )
    return key


def _address(given: str | None, known: "ServerState | None") -> Address:
    if given is not None:
        return parse_address(given)
    return known.address if known is not None else parse_address(DEFAULT_ADDRESS)


def _report(line: str) -> None:
    typer.echo(line)
