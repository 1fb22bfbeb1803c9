"""Supervision of Flower's SuperNode on this device: start, restart after failures, orderly shutdown."""

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from edge.normal_buffer import PURPOSE
from edge.sealing import Seal
from shared import federation
from shared.addresses import Address
from shared.backoff import Backoff
from shared.errors import FederationError, SettingsError
from shared.files import write_durably
from shared.supervision import SupervisedProcess, stoppable, supervised

POLL_S = 0.2
STABLE_AFTER_S = 60.0  # a node that ran this long resets the back-off
RETRY_WAIT_S, MAX_RETRY_WAIT_S, MAX_RETRIES = 1.0, 15.0, 5


@dataclass(frozen=True)
class NodeOptions:
    """Options of a device's node.

    `buffer`: a snapshot of normal samples or a folder of snapshots, which need not exist yet. `buffer_key`: file with
    the encryption key of the snapshots.
    """

    server: Address
    state_dir: Path
    buffer: Path
    authority: Path | None = None
    key: Path | None = None
    threads: int = 1
    buffer_key: Path | None = None

    def check(self) -> None:
        """Raise SettingsError for plain HTTP beyond loopback, or a file that is missing."""
        federation.require_secure(self.server, self.authority)
        if self.key is not None and self.authority is None:
            raise SettingsError("--key needs TLS: give the server's authority with --ca.")
        if self.buffer_key is not None:
            Seal.from_file(self.buffer_key, PURPOSE)
        for path in (self.authority, self.key):
            if path is not None and not path.is_file():
                raise SettingsError(f"{path}: no such file. Give its path in PEM.")


def write_node_config(options: NodeOptions) -> Path:
    """Write the node configuration to a file, since paths on the command line must not contain quotes."""
    values: dict[str, str | int] = {
        federation.NODE_BUFFER: str(options.buffer.resolve()),
        federation.NODE_THREADS: options.threads,
    }
    if options.buffer_key is not None:
        values[federation.NODE_BUFFER_KEY] = str(options.buffer_key.resolve())
    # JSON strings and numbers are valid TOML.
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
    path = options.state_dir.resolve() / "node.toml"
    write_durably(path, "".join(lines).encode(), mode=0o600)
    return path


def supernode_command(options: NodeOptions, config: Path, port: int) -> list[str]:
    """Return the command line of a SuperNode whose local processes connect to `port` on loopback."""
    command = [federation.flower_command("flower-supernode"), "--superlink", str(options.server)]
    command += ["--port", str(port), "--node-config", str(config)]
    if options.authority is None:
        command.append("--insecure")
    else:
        command += ["--root-certificates", str(options.authority.resolve())]
    if options.key is not None:
        command += ["--auth-supernode-private-key", str(options.key.resolve())]
    return command


def run_node(options: NodeOptions, *, say: Callable[[str], None]) -> None:
    """Run a SuperNode until this process receives a signal, then return.

    The SuperNode waits for a server that is not reachable yet. If the SuperNode ends, for example after a restart of
    the server, it is restarted with exponential back-off. Raises FederationError after MAX_RETRIES failures in a row.
    """
    options.check()
    backoff = Backoff(RETRY_WAIT_S, MAX_RETRY_WAIT_S)
    with stoppable():
        while True:
            try:
                with _supernode(options) as child:
                    started_s = time.monotonic()
                    say(f"Joining the rounds at {options.server} with {options.buffer} (log: {child.log}).")
                    while (code := child.exit_code()) is None:
                        time.sleep(POLL_S)
                    if time.monotonic() - started_s > STABLE_AFTER_S:
                        backoff.reset()
                    if backoff.failures == MAX_RETRIES:
                        raise FederationError(
                            f"The SuperNode failed {backoff.failures + 1} times in a row, at last with exit code "
                            f"{code}: {child.last_error()} (see {child.log})."
                        )
                    say(f"The SuperNode ended (exit code {code}): {child.last_error()} Starting it again.")
                    time.sleep(backoff.next_s())
            except KeyboardInterrupt:
                say("Stopping.")
                return


def _supernode(options: NodeOptions) -> AbstractContextManager[SupervisedProcess]:
    port = federation.take_port(Address("127.0.0.1", 0)).port
    environment = federation.flower_environment(options.state_dir / "flower")
    return supervised(
        supernode_command(options, write_node_config(options), port),
        log=options.state_dir / "supernode.log",
        environment={**environment, "OMP_NUM_THREADS": str(options.threads)},
        folder=options.state_dir,
    )
