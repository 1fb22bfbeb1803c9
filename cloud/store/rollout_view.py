"""State of a rollout, for the command line, the console and the HTTP API."""

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.rollouts.gates import GateResult
from cloud.rollouts.limits import RolloutLimits
from cloud.rollouts.phases import ACTIVE, RolloutPhase
from cloud.rollouts.stage_devices import ListedDevice, RolloutState
from cloud.rollouts.stages import Stage
from cloud.store.rollouts import StagedRollout, history_of, newest_rollout


class StageView(Stage):
    """One stage with its state: passed, waiting, not begun, or the phase of the rollout.

    `counts`: devices that the stage adds, by state; `listed`: some of them, those with trouble first.
    """

    state: str
    counts: dict[RolloutState, int] = Field(default_factory=dict)
    listed: tuple[ListedDevice, ...] = ()


class HistoryView(BaseModel):
    """One change of a rollout: who made it and why; `stage` is a stage's name."""

    model_config = ConfigDict(frozen=True)

    at_s: float
    event: str
    phase: str
    stage: str
    author: str
    reason: str


class RolloutView(BaseModel):
    """One rollout with its stages, gates and history; `stage` is the name of its last stage so far."""

    model_config = ConfigDict(frozen=True)

    number: int
    bundle_name: str
    bundle_id: str
    before_bundle_id: str
    phase: RolloutPhase
    stage: str
    stages: tuple[StageView, ...]
    started_at_s: float
    stage_started_at_s: float
    ended_at_s: float | None
    limits: RolloutLimits
    gates: tuple[GateResult, ...]
    history: tuple[HistoryView, ...]

    def without_devices(self) -> "RolloutView":
        """Return the rollout without everything that names or may name a device."""
        unnamed: dict[str, Any] = {"devices": (), "counts": {}, "listed": ()}
        stages = tuple(stage.model_copy(update=unnamed) for stage in self.stages)
        return self.model_copy(update={"stages": stages, "gates": (), "history": ()})


class BundleVersion(BaseModel):
    """One version of a bundle in the registry."""

    model_config = ConfigDict(frozen=True)

    bundle_id: str
    version: int
    modality: str
    published_at_s: float
    is_current: bool


class BundleVersions(BaseModel):
    """All versions of a bundle name, and its newest rollout."""

    model_config = ConfigDict(frozen=True)

    name: str
    bundles: tuple[BundleVersion, ...]
    rollout: RolloutView | None


async def rollout_view(connection: AsyncConnection, name: str) -> RolloutView | None:
    """Return the newest rollout of a name with its stages, gates and history; None if there was none."""
    rollout = await newest_rollout(connection, name)
    return await view_of(connection, rollout) if rollout is not None else None


async def view_of(connection: AsyncConnection, rollout: StagedRollout) -> RolloutView:
    """Return a rollout with its stages, gates and history."""
    return RolloutView(
        number=rollout.number,
        bundle_name=rollout.bundle_name,
        bundle_id=rollout.bundle_id,
        before_bundle_id=rollout.before_bundle_id,
        phase=rollout.phase,
        stage=rollout.stages[rollout.stage].name,
        stages=tuple(
            StageView(**stage.model_dump(), state=_stage_state(rollout, place), **_devices(rollout, place))
            for place, stage in enumerate(rollout.stages)
        ),
        started_at_s=rollout.started_at_s,
        stage_started_at_s=rollout.stage_started_at_s,
        ended_at_s=rollout.ended_at_s,
        limits=rollout.limits,
        gates=rollout.gates,
        history=tuple(
            HistoryView(**asdict(entry) | {"stage": rollout.stages[entry.stage].name})
            for entry in await history_of(connection, rollout.number)
        ),
    )


def _devices(rollout: StagedRollout, place: int) -> dict[str, Any]:
    return dict(rollout.devices[place]) if place < len(rollout.devices) else {}


def _stage_state(rollout: StagedRollout, place: int) -> str:
    if place < rollout.stage or rollout.phase is RolloutPhase.COMPLETED:
        return "passed"
    if place > rollout.stage:
        return "waiting" if rollout.phase in ACTIVE else "not begun"
    return rollout.phase.value
