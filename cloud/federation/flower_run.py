"""One Flower run of the ServerApp: its app folder, `flwr run`, and its events."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud.federation import server_app_keys as keys
from cloud.federation.exchange import RUN_FOLDER_KEY, RunFolder, RunOutcome
from shared import federation
from shared.addresses import Address
from shared.errors import FederationError
from shared.files import write_durably
from shared.supervision import SupervisedProcess, supervised

POLL_S = 0.2
OUTCOME_GRACE_S = 5.0
OVERHEAD_S = 60.0  # to start the run and its processes
CONNECTION = "vedette"


@dataclass(frozen=True)
class RunPlan:
    """Plan of one run; times in seconds."""

    rounds: int
    min_clients: int
    wait_clients: int
    wait_s: float
    round_s: float
    training: dict[str, Any]

    @property
    def timeout_s(self) -> float:
        """Timeout of the whole run."""
        return OVERHEAD_S + self.wait_s + self.rounds * (self.round_s + OVERHEAD_S / 4)


def write_app(folder: RunFolder, plan: RunPlan) -> Path:
    """Write the app folder of the run; it only names its components, which are installed with Vedette."""
    config = {
        RUN_FOLDER_KEY: str(folder.path.resolve()),
        keys.ROUNDS: plan.rounds,
        keys.MIN_CLIENTS: plan.min_clients,
        keys.WAIT_CLIENTS: plan.wait_clients,
        keys.WAIT_SECONDS: float(plan.wait_s),
        keys.ROUND_SECONDS: float(plan.round_s),
        keys.TRAINING: json.dumps(plan.training),
    }
    lines = [
        "[project]",
        'name = "vedette-rounds"',
        'version = "0.1.0"',
        'description = "Rounds of Vedette heads"',
        'license = "Apache-2.0"',
        'dependencies = ["flwr>=1.41,<1.42"]',
        "[tool.flwr.app]",
        'publisher = "vedette"',
        "[tool.flwr.app.components]",
        'serverapp = "cloud.federation.server_app:app"',
        'clientapp = "edge.federated:app"',
        "[tool.flwr.app.config]",
        # JSON's strings and numbers are TOML's as well.
        *(f"{name} = {json.dumps(value)}" for name, value in config.items()),
    ]
    app = folder.path / "app"
    write_durably(app / "pyproject.toml", ("\n".join(lines) + "\n").encode())
    return app


def write_connection(home: Path, address: Address, authority: Path | None) -> None:
    """Write the address of the SuperLink for Flower's commands with state below `home`."""
    security = "insecure = true" if authority is None else f"root-certificates = {json.dumps(str(authority))}"
    text = f'[superlink]\ndefault = "{CONNECTION}"\n[superlink.{CONNECTION}]\naddress = "{address}"\n{security}\n'
    write_durably(home / "config.toml", text.encode())


def run(
    folder: RunFolder,
    plan: RunPlan,
    address: Address,
    authority: Path | None,
    *,
    show: Callable[[dict[str, Any]], None],
) -> RunOutcome:
    """Run the plan on the SuperLink at `address`; `show` receives each event of the log.

    `folder` already holds the initial head, and the aggregated one afterwards. Raises FederationError if the run cannot
    be started, times out or fails.
    """
    app, home = write_app(folder, plan), folder.path / "flower"
    write_connection(home, address, authority)
    with supervised(
        [federation.flower_command("flwr"), "run", str(app), CONNECTION, "--stream"],
        log=folder.path / "flower.log",
        environment=federation.flower_environment(home),
        folder=folder.path,
    ) as child:
        try:
            for event in _events(folder, child, plan.timeout_s):
                show(event)
        finally:
            if folder.outcome() is None:
                folder.cancel()  # the SuperLink would continue the run
    outcome = folder.outcome()
    if outcome is None:
        raise FederationError(f"The run ended without an outcome: {child.last_error()} (see {child.log}).")
    if outcome.error:
        raise FederationError(f"The round failed: {outcome.error} (see {child.log}).")
    return outcome


def _events(folder: RunFolder, child: SupervisedProcess, timeout_s: float) -> Iterator[dict[str, Any]]:
    """Yield events until there is an outcome, or the child has ended without one."""
    seen = 0
    deadline_s = time.monotonic() + timeout_s
    while True:
        ended = folder.outcome() is not None
        if not ended and child.exit_code() is not None:
            deadline_s = min(deadline_s, time.monotonic() + OUTCOME_GRACE_S)
            # A failed command has started no process that could still write an outcome.
            ended = child.exit_code() != 0
        for event in folder.events(seen):
            seen += 1
            yield event
        if ended:
            return
        if time.monotonic() > deadline_s:
            if child.exit_code() is not None:
                return
            raise FederationError(f"The run timed out after {timeout_s:.0f} s: see {child.log}.")
        time.sleep(POLL_S)
