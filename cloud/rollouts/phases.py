"""Phases of a rollout: one state machine, whose state is in the store."""

from enum import StrEnum

from shared.errors import RolloutError


class RolloutPhase(StrEnum):
    """Phase of a rollout."""

    UNDER_WAY = "under way"  # the devices of its stages run the new bundle, and the gates watch them
    PAUSED = "paused"  # no further stage begins; a failed gate still halts it
    COMPLETED = "completed"  # the new bundle is the current one
    HALTED = "halted"  # a gate failed: the devices return to the bundle before
    TAKEN_BACK = "taken back"  # a person ended it: the devices return to the bundle before


class RolloutEvent(StrEnum):
    """Event that moves a rollout to another phase."""

    PASSED = "gates passed"  # and another stage follows
    FINISHED = "last gates passed"
    FAILED = "gate failed"
    PAUSE = "pause"
    RESUME = "resume"
    BACK = "back"


TRANSITIONS: dict[tuple[RolloutPhase, RolloutEvent], RolloutPhase] = {
    (RolloutPhase.UNDER_WAY, RolloutEvent.PASSED): RolloutPhase.UNDER_WAY,
    (RolloutPhase.UNDER_WAY, RolloutEvent.FINISHED): RolloutPhase.COMPLETED,
    (RolloutPhase.UNDER_WAY, RolloutEvent.FAILED): RolloutPhase.HALTED,
    (RolloutPhase.UNDER_WAY, RolloutEvent.PAUSE): RolloutPhase.PAUSED,
    (RolloutPhase.UNDER_WAY, RolloutEvent.BACK): RolloutPhase.TAKEN_BACK,
    (RolloutPhase.PAUSED, RolloutEvent.RESUME): RolloutPhase.UNDER_WAY,
    (RolloutPhase.PAUSED, RolloutEvent.FAILED): RolloutPhase.HALTED,
    (RolloutPhase.PAUSED, RolloutEvent.BACK): RolloutPhase.TAKEN_BACK,
}
ACTIVE = (RolloutPhase.UNDER_WAY, RolloutPhase.PAUSED)


def following(phase: RolloutPhase, event: RolloutEvent) -> RolloutPhase:
    """Return the next phase; raises RolloutError for an event that the phase does not allow."""
    found = TRANSITIONS.get((phase, event))
    if found is None:
        raise RolloutError(
            f"A rollout that is {phase} does not take {event.value!r}: see vedette cloud rollout status."
        )
    return found
