"""ServerApp of one `vedette federated run`, which Flower's SuperLink runs in a separate process."""

import json
import time
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from cloud.federation import server_app_keys as keys
from cloud.federation.exchange import RUN_FOLDER_KEY, RunFolder, RunOutcome
from cloud.federation.strategy import HeadAveraging
from shared.errors import FederationError, VedetteError

POLL_S = 1.0

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds and always write an outcome to the run's folder."""
    folder = RunFolder(Path(str(context.run_config[RUN_FOLDER_KEY])))
    rounds: HeadAveraging | None = None
    error = "the server process of the run was ended"
    try:
        initial = folder.initial()
        rounds = HeadAveraging(initial, folder, min_clients=int(context.run_config[keys.MIN_CLIENTS]))
        wait_for_nodes(
            grid,
            folder,
            wanted=int(context.run_config[keys.WAIT_CLIENTS]),
            needed=int(context.run_config[keys.MIN_CLIENTS]),
            timeout_s=float(context.run_config[keys.WAIT_SECONDS]),
        )
        result = rounds.start(
            grid=grid,
            initial_arrays=ArrayRecord({name: Array(array) for name, array in initial.items()}),
            num_rounds=int(context.run_config[keys.ROUNDS]),
            timeout=float(context.run_config[keys.ROUND_SECONDS]),
            train_config=ConfigRecord(json.loads(str(context.run_config[keys.TRAINING]))),
        )
        folder.write_aggregate({name: array.numpy() for name, array in result.arrays.items()})
        error = ""
    except VedetteError as failure:
        error = str(failure)
        raise
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
        raise
    finally:
        folder.write_outcome(RunOutcome(tuple(rounds.rounds) if rounds is not None else (), error))


def wait_for_nodes(grid: Grid, folder: RunFolder, *, wanted: int, needed: int, timeout_s: float) -> None:
    """Wait until `wanted` devices are connected; after `timeout_s` seconds `needed` are enough.

    Raises FederationError if fewer than `needed` are connected then.
    """
    deadline_s = time.monotonic() + timeout_s
    connected = -1
    while True:
        folder.raise_if_cancelled()
        if (now := len(list(grid.get_node_ids()))) != connected:
            connected = now
            folder.log_event("connected", devices=connected, wanted=wanted)
        if connected >= wanted:
            return
        if time.monotonic() >= deadline_s:
            break
        time.sleep(min(POLL_S, timeout_s))
    if connected < needed:
        raise FederationError(
            f"after {timeout_s:.0f} s {connected} of the {needed} devices needed are connected: start "
            "vedette federated node on more of them"
        )
