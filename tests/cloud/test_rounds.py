"""Federated runs as their files tell them: published, failed, under way, lost, and damaged."""

import json
from pathlib import Path

from cloud.console.models.round_routes import run_on_page
from cloud.console.rendering import render
from cloud.federation.exchange import RoundRecord, RunFolder, RunOutcome
from cloud.system.rounds import BUILDING_S, PLAN_FILE, RESULT_FILE, RUNS_FOLDER, RunPlanFacts, last_runs

PLAN = RunPlanFacts(
    bundle_name="press",
    bundle_before="press-1-0badcafe",
    rounds=1,
    min_clients=2,
    started_at_s=100.0,
    deadline_s=200.0,
    head_bytes=1000,
)


def made(data_dir: Path, name: str, outcome: RunOutcome | None = None, **result: str) -> Path:
    folder = data_dir / RUNS_FOLDER / name
    folder.mkdir(parents=True)
    (folder / PLAN_FILE).write_text(PLAN.model_dump_json())
    if outcome is not None:
        RunFolder(folder).write_outcome(outcome)
    if result:
        (folder / RESULT_FILE).write_text(json.dumps(result))
    return folder


def test_runs_are_read_from_their_files(tmp_path: Path) -> None:
    assert last_runs(tmp_path, 0.0) == []
    clients = {
        "7": {"num-examples": 100.0, "loss": 0.5, "train-seconds": 2.0},
        "8": {"num-examples": 300.0, "loss": 0.1, "train-seconds": 3.0},
    }
    done = RunOutcome((RoundRecord(1, 4.5, clients, {"9": "<b>too few</b> samples"}),))
    made(tmp_path, "a", done, bundle_after="press-2-00000000")
    made(tmp_path, "b", RunOutcome((), "the server ended"))
    made(tmp_path, "c", done, error="the artefacts disagree")
    made(tmp_path, "d")
    damaged = made(tmp_path, "e")
    (damaged / PLAN_FILE).write_text("[")
    runs = {run.name: run for run in last_runs(tmp_path, 200.0)}
    assert {name: run.status for name, run in runs.items()} == {
        "a": "published",
        "b": "failed",
        "c": "failed",
        "d": "under way",
        "e": "lost",
    }
    (first,) = runs["a"].rounds
    assert (first.devices, first.samples, first.loss) == (2, 400, 0.2)
    assert first.moved_bytes == 5000, "three heads sent, two received"
    assert runs["c"].reason == "the artefacts disagree"
    assert last_runs(tmp_path, 201.0 + BUILDING_S)[1].status == "lost"
    page = render("models/rounds.html", runs=[run_on_page(run) for run in runs.values()])
    assert "press-2-00000000" in page
    assert "<b>too few" not in page
    assert "vedette federated run" in render("models/rounds.html", runs=[])
