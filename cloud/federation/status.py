"""Status for `vedette federated status`: the server, its connected devices, and the last runs."""

import json
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cloud.federation.exchange import RunFolder
from cloud.federation.flower_run import CONNECTION, write_connection
from cloud.federation.superlink import is_healthy
from shared import federation
from shared.addresses import Address
from shared.errors import FederationError

LIST_TIMEOUT_S = 60.0
LAST_RUNS = 10


def server_status(address: Address, authority: Path | None) -> dict[str, Any]:
    """Return whether a SuperLink answers at `address`, and its registered nodes."""
    if not is_healthy(address, authority):
        return {"address": str(address), "answers": False, "nodes": []}
    return {"address": str(address), "answers": True, "nodes": list_nodes(address, authority)}


def list_nodes(address: Address, authority: Path | None) -> list[dict[str, str]]:
    """Return id, status and seconds online of each node from Flower's command; raises FederationError."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            write_connection(home, address, authority)
            done = subprocess.run(
                [federation.flower_command("flwr"), "supernode", "list", CONNECTION, "--format", "json"],
                env=federation.flower_environment(home),
                cwd=home,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LIST_TIMEOUT_S,
                check=False,
            )
        values = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise FederationError(f"The SuperLink at {address} did not list its nodes in {LIST_TIMEOUT_S:.0f} s.") from None
    except ValueError:
        text = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise FederationError(f"The nodes could not be listed: {text[-1] if text else 'no answer'}.") from None
    if not values.get("success"):
        raise FederationError(f"The nodes could not be listed: {values.get('error-message', 'no reason given')}.")
    return [
        {"node": str(node["node-id"]), "status": str(node["status"]), "online_s": str(node.get("online-elapsed", ""))}
        for node in values["nodes"]
        if node["status"] != "unregistered"
    ]


def last_runs(runs_dir: Path) -> list[dict[str, Any]]:
    """Return folder name and outcome of the last runs, newest first; outcome None for a running one."""
    folders = sorted((path for path in runs_dir.glob("*") if path.is_dir()), reverse=True)[:LAST_RUNS]
    outcomes = [(folder.name, RunFolder(folder).outcome()) for folder in folders]
    return [{"run": name, "outcome": asdict(outcome) if outcome is not None else None} for name, outcome in outcomes]
