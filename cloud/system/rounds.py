"""Federated runs of this machine, read from the files that `vedette federated run` leaves."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

LAST_RUNS, MAX_DEVICES = 20, 100
MAX_FILE_BYTES = 4 * 2**20
BUILDING_S = 900.0  # from the last round to the published bundle
RUNS_FOLDER = Path("federation") / "runs"
PLAN_FILE, OUTCOME_FILE, RESULT_FILE = "plan.json", "outcome.json", "result.json"
_SAMPLES, _LOSS = "num-examples", "loss"


class RunPlanFacts(BaseModel):
    """Facts that a run stores before its first round; `head_bytes` is the size of one head."""

    model_config = ConfigDict(frozen=True)

    bundle_name: str
    bundle_before: str
    rounds: int
    min_clients: int
    started_at_s: float
    deadline_s: float
    head_bytes: int


class RoundFacts(BaseModel):
    """One round: devices that answered, their samples, the mean loss by samples, refusals by device, bytes moved."""

    model_config = ConfigDict(frozen=True)

    number: int
    seconds: float
    devices: int
    samples: int
    loss: float | None
    refusals: tuple[tuple[str, str], ...]
    moved_bytes: int


class RunFacts(BaseModel):
    """One run; `status` is "under way", "published", "failed" or "lost", `reason` says why it failed."""

    model_config = ConfigDict(frozen=True)

    name: str
    plan: RunPlanFacts | None
    status: str
    reason: str
    rounds: tuple[RoundFacts, ...]
    bundle_after: str


def last_runs(data_dir: Path, now_s: float) -> list[RunFacts]:
    """Return the newest LAST_RUNS runs of this machine, newest first; none if there were none. Blocking."""
    try:
        folders = sorted((path for path in (data_dir / RUNS_FOLDER).iterdir() if path.is_dir()), reverse=True)
    except OSError:
        return []
    return [_run(folder, now_s) for folder in folders[:LAST_RUNS]]


def _run(folder: Path, now_s: float) -> RunFacts:
    plan = _plan(folder)
    outcome, result = _values(folder / OUTCOME_FILE), _values(folder / RESULT_FILE)
    rounds = tuple(_round(each, plan) for each in _listed(outcome.get("rounds")))
    after, reason = str(result.get("bundle_after", "")), str(outcome.get("error") or result.get("error") or "")
    if after:
        status = "published"
    elif reason:
        status = "failed"
    elif plan is not None and now_s < plan.deadline_s + BUILDING_S:
        status = "under way"
    else:
        status, reason = "lost", "It left no result: its process was ended, or an earlier version of Vedette ran it."
    return RunFacts(
        name=folder.name, plan=plan, status=status, reason=reason[:1000], rounds=rounds, bundle_after=after[:128]
    )


def _round(values: dict[str, Any], plan: RunPlanFacts | None) -> RoundFacts:
    clients = [each for each in _mapping(values.get("clients")).values() if isinstance(each, dict)]
    samples = sum(int(_number(each.get(_SAMPLES))) for each in clients)
    losses = [(_number(each.get(_SAMPLES)), _number(each.get(_LOSS))) for each in clients if _LOSS in each]
    weight = sum(count for count, _ in losses)
    failures = [(str(node)[:64], str(reason)[:300]) for node, reason in _mapping(values.get("failures")).items()]
    asked = len(clients) + len(failures)
    return RoundFacts(
        number=int(_number(values.get("number"))),
        seconds=_number(values.get("seconds")),
        devices=len(clients),
        samples=samples,
        loss=sum(count * loss for count, loss in losses) / weight if weight > 0 else None,
        refusals=tuple(sorted(failures)[:MAX_DEVICES]),
        moved_bytes=(asked + len(clients)) * plan.head_bytes if plan is not None else 0,
    )


def _plan(folder: Path) -> RunPlanFacts | None:
    try:
        return RunPlanFacts.model_validate(_values(folder / PLAN_FILE))
    except ValidationError:
        return None


def _values(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if there is none, or if it is damaged or too large."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return {}
        return _mapping(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _listed(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
