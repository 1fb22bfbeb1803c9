"""State of a rollout as JSON values, for the command line, the console and the HTTP API."""

from dataclasses import asdict
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.rollouts.phases import ACTIVE, RolloutPhase
from cloud.store.rollouts import StagedRollout, history_of, newest_rollout


async def rollout_view(connection: AsyncConnection, name: str) -> dict[str, Any] | None:
    """Return the newest rollout of a name with its stages, gates and history; None if there was none."""
    rollout = await newest_rollout(connection, name)
    return await view_of(connection, rollout) if rollout is not None else None


async def view_of(connection: AsyncConnection, rollout: StagedRollout) -> dict[str, Any]:
    """Return a rollout with its stages, gates and history."""
    stages = [
        stage.model_dump(mode="json") | {"state": _stage_state(rollout, place)}
        for place, stage in enumerate(rollout.stages)
    ]
    return {
        "bundle_name": rollout.bundle_name,
        "bundle_id": rollout.bundle_id,
        "before_bundle_id": rollout.before_bundle_id,
        "phase": rollout.phase.value,
        "stage": rollout.stages[rollout.stage].name,
        "stages": stages,
        "started_at_s": rollout.started_at_s,
        "stage_started_at_s": rollout.stage_started_at_s,
        "ended_at_s": rollout.ended_at_s,
        "gates": [gate.model_dump(mode="json") for gate in rollout.gates],
        "history": [
            asdict(entry) | {"stage": rollout.stages[entry.stage].name}
            for entry in await history_of(connection, rollout.number)
        ],
    }


def _stage_state(rollout: StagedRollout, place: int) -> str:
    if place < rollout.stage or rollout.phase is RolloutPhase.COMPLETED:
        return "passed"
    if place > rollout.stage:
        return "waiting" if rollout.phase in ACTIVE else "not begun"
    return rollout.phase.value
