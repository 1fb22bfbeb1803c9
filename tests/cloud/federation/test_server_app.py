"""The ServerApp: it waits for devices, leaves the aggregate and the outcome, and says why it failed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from cloud.federation import server_app
from cloud.federation import server_app_keys as keys
from cloud.federation.exchange import RUN_FOLDER_KEY, RunFolder
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.errors import FederationError

DIM = 5


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    path = tmp_path / "run"
    path.mkdir()
    folder = RunFolder(path)
    folder.write_initial(TimeEstimationHead(DIM, (8, 8)).to_arrays())
    return folder


@pytest.fixture
def context(folder: RunFolder, training: dict[str, Any]) -> Context:
    config = {
        RUN_FOLDER_KEY: str(folder.path),
        keys.ROUNDS: 1,
        keys.MIN_CLIENTS: 2,
        keys.WAIT_CLIENTS: 2,
        keys.WAIT_SECONDS: 0.0,
        keys.ROUND_SECONDS: 5.0,
        keys.TRAINING: json.dumps(training),
    }
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config)


def test_a_run_leaves_the_aggregate_and_its_outcome(
    folder: RunFolder, context: Context, grid: Any, buffers: Callable[..., Any]
) -> None:
    server_app.app(grid=grid(buffers(120, 90)), context=context)
    outcome = folder.outcome()
    assert outcome is not None
    assert outcome.error == ""
    assert sorted(outcome.rounds[0].clients) == ["1", "2"]
    aggregate = folder.aggregate()
    assert {name: a.shape for name, a in aggregate.items()} == {name: a.shape for name, a in folder.initial().items()}
    assert any(not np.array_equal(aggregate[name], array) for name, array in folder.initial().items())
    assert [note["event"] for note in folder.events()] == ["connected", "round", "update", "update"]


def test_a_failure_is_left_in_the_outcome(
    folder: RunFolder, context: Context, grid: Any, buffers: Callable[..., Any]
) -> None:
    with pytest.raises(FederationError):
        server_app.app(grid=grid(buffers(120, 5)), context=context)
    outcome = folder.outcome()
    assert outcome is not None
    assert "1 of 2 devices sent an update" in outcome.error
    assert "5 normal samples" in outcome.rounds[0].failures["2"]
    with pytest.raises(FederationError, match="does not hold a head"):
        folder.aggregate()


def test_too_few_devices_end_the_wait_with_advice(
    folder: RunFolder, context: Context, grid: Any, buffers: Callable[..., Any]
) -> None:
    with pytest.raises(FederationError, match="1 of the 2 devices needed are connected: start vedette federated node"):
        server_app.app(grid=grid(buffers(120)), context=context)


def test_enough_devices_go_ahead_when_the_wait_for_more_is_over(
    folder: RunFolder, grid: Any, buffers: Callable[..., Any]
) -> None:
    server_app.wait_for_nodes(grid(buffers(60, 60)), folder, wanted=3, needed=2, timeout_s=0.0)
    assert folder.events() == [{"event": "connected", "devices": 2, "wanted": 3}]


def test_a_damaged_head_is_an_outcome_too(
    folder: RunFolder, context: Context, grid: Any, buffers: Callable[..., Any]
) -> None:
    (folder.path / "initial.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(FederationError):
        server_app.app(grid=grid(buffers(60, 60)), context=context)
    outcome = folder.outcome()
    assert outcome is not None
    assert "does not hold a head" in outcome.error


def test_a_cancelled_run_ends_before_its_next_round(
    folder: RunFolder, context: Context, grid: Any, buffers: Callable[..., Any]
) -> None:
    folder.cancel()
    with pytest.raises(FederationError, match="cancelled"):
        server_app.app(grid=grid(buffers(60, 60)), context=context)
    assert [note["event"] for note in folder.events()] == []
