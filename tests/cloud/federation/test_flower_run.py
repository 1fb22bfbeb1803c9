"""Flower's app folder, and failing runs."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cloud.federation import flower_run
from cloud.federation import server_app_keys as keys
from cloud.federation.exchange import RUN_FOLDER_KEY, RoundRecord, RunFolder, RunOutcome
from shared import federation
from shared.errors import FederationError
from shared.federation import Address

PLAN = flower_run.RunPlan(
    rounds=2, min_clients=2, wait_clients=3, wait_s=4.0, round_s=5.0, training={"distillation": '{"steps": 7}'}
)


def test_flower_accepts_the_app_folder(tmp_path: Path) -> None:
    from flwr.common.config import get_project_config

    folder = RunFolder(tmp_path / 'a "quoted" folder')
    app = flower_run.write_app(folder, PLAN)
    values = get_project_config(app)["tool"]["flwr"]["app"]
    assert values["components"] == {
        "serverapp": "cloud.federation.server_app:app",
        "clientapp": "edge.federated:app",
    }
    assert values["config"][RUN_FOLDER_KEY] == str(folder.path)
    assert values["config"][keys.ROUNDS] == 2
    assert values["config"][keys.WAIT_SECONDS] == 4.0
    assert json.loads(values["config"][keys.TRAINING]) == PLAN.training


@pytest.mark.parametrize("authority", [None, Path("/etc/ca.pem")])
def test_flower_finds_the_superlink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Path | None) -> None:
    from flwr.cli.flower_config import read_superlink_connection

    flower_run.write_connection(tmp_path, Address("127.0.0.1", 7490), authority)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    connection = read_superlink_connection(flower_run.CONNECTION)
    assert connection.address == "127.0.0.1:7490"
    assert connection.insecure is (authority is None)


def run_with(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, code: str, plan: Any = PLAN) -> list[dict[str, Any]]:
    """Run `code` where `flwr run` would run."""
    command = folder.path / "flwr"
    folder.path.mkdir(parents=True, exist_ok=True)
    command.write_text(f"#!{sys.executable}\n{code}\n")
    command.chmod(0o700)
    monkeypatch.setattr(federation, "flower_command", lambda _: str(command))
    events: list[dict[str, Any]] = []
    flower_run.run(folder, plan, Address("127.0.0.1", 1), None, show=events.append)
    return events


def test_progress_is_shown_and_half_a_line_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.log_event("round", number=1, devices=2)
    with (folder.path / "progress.jsonl").open("a") as file:
        file.write('{"event": "half')
    folder.write_outcome(RunOutcome((RoundRecord(1, 2.0, {"1": {"loss": 0.5}}, {"2": "no"}),)))
    assert run_with(folder, monkeypatch, "import time; time.sleep(30)") == [
        {"event": "round", "number": 1, "devices": 2}
    ]
    assert folder.outcome() == RunOutcome((RoundRecord(1, 2.0, {"1": {"loss": 0.5}}, {"2": "no"}),))


def test_a_command_that_fails_is_one_line_with_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FederationError, match=r"Error: no SuperLink there \(see .*flower\.log\)"):
        run_with(RunFolder(tmp_path / "run"), monkeypatch, "print('Error: no SuperLink there'); raise SystemExit(1)")


def test_a_failed_outcome_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_outcome(RunOutcome((), "round 1: too few"))
    with pytest.raises(FederationError, match=r"round 1: too few \(see .*flower\.log\)"):
        run_with(folder, monkeypatch, "import time; time.sleep(30)")


def test_a_run_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_run, "OVERHEAD_S", 0.2)
    plan = flower_run.RunPlan(rounds=1, min_clients=1, wait_clients=1, wait_s=0.1, round_s=0.1, training={})
    with pytest.raises(FederationError, match="timed out"):
        run_with(RunFolder(tmp_path / "run"), monkeypatch, "import time; time.sleep(30)", plan)


def test_a_run_that_ends_without_outcome_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_run, "OUTCOME_GRACE_S", 0.2)
    with pytest.raises(FederationError, match="without an outcome: Error: lost"):
        run_with(RunFolder(tmp_path / "run"), monkeypatch, "print('Error: lost')")
