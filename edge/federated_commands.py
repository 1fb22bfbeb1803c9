"""Command `vedette federated node`: runs a device's node of federated rounds, without importing torch."""

from pathlib import Path
from typing import Annotated

import typer

from shared.cli import CommandTree
from shared.errors import SettingsError
from shared.federation import DEFAULT_ADDRESS, parse_address

STATE_FOLDER = "federated"


def add_commands(tree: CommandTree) -> None:
    """Add the device's command to the tree."""
    tree.group("federated").command(
        epilog="Examples:  vedette federated node --config edge.toml  |  vedette federated node --config edge.toml "
        "--server rounds.example:7490 --ca ca.pem --key node-key  |  vedette federated node --buffer normals.npz"
    )(node)


def node(
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="The agent's edge.toml: its normal buffers are used."),
    ] = None,
    buffer: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="In place of --config: a snapshot of normal samples, or a folder of them."),
    ] = None,
    buffer_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --buffer: the key that the snapshots are sealed with.")
    ] = None,
    server: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The address of vedette federated server.")
    ] = DEFAULT_ADDRESS,
    state_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="State and logs; default: beside the normal buffer.")
    ] = None,
    authority: Annotated[
        Path | None,
        typer.Option("--ca", metavar="PEM", help="Authority that signed the server's certificate: speak TLS."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="This node's private key (ssh-keygen -t ecdsa), if it needs one."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads that training may use.")] = 1,
) -> None:
    """Take part in federated rounds: train on this device's normal samples, which stay here.

    Runs beside the agent until it is stopped, and waits for its server to start.
    """
    from edge.federated_node import NodeOptions, run_node
    from edge.normal_buffer import FOLDER
    from edge.settings import AgentSettings

    if (config is None) == (buffer is None):
        raise SettingsError("Give either --config (the agent's edge.toml) or --buffer (its snapshots).")
    if buffer is None:
        settings = AgentSettings.load(config)
        if not settings.normal_buffer.capacity:
            raise SettingsError(f"{config}: normal_buffer.capacity is 0, so there is nothing to train on: raise it.")
        buffer, buffer_key = settings.state_dir / FOLDER, settings.normal_buffer.key_file
    options = NodeOptions(
        server=parse_address(server),
        state_dir=(state_dir or buffer.parent / STATE_FOLDER).absolute(),
        buffer=buffer.absolute(),
        buffer_key=buffer_key,
        authority=authority,
        key=key,
        threads=threads,
    )
    run_node(options, say=typer.echo)
