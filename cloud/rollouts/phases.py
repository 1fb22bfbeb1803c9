"""Phases of a rollout: one state machine, whose state is in the store."""

from enum import StrEnum

from shared.errors import RolloutError


class Phase(StrEnum):
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


TRANSITIONS: dict[tuple[Phase, RolloutEvent], Phase] = {
    (Phase.UNDER_WAY, RolloutEvent.PASSED): Phase.UNDER_WAY,
    (Phase.UNDER_WAY, RolloutEvent.FINISHED): Phase.COMPLETED,
    (Phase.UNDER_WAY, RolloutEvent.FAILED): Phase.HALTED,
    (Phase.UNDER_WAY, RolloutEvent.PAUSE): Phase.PAUSED,
    (Phase.UNDER_WAY, RolloutEvent.BACK): Phase.TAKEN_BACK,
    (Phase.PAUSED, RolloutEvent.RESUME): Phase.UNDER_WAY,
    (Phase.PAUSED, RolloutEvent.FAILED): Phase.HALTED,
    (Phase.PAUSED, RolloutEvent.BACK): Phase.TAKEN_BACK,
}
ACTIVE = (Phase.UNDER_WAY, Phase.PAUSED)


def following(phase: Phase, event: RolloutEvent) -> Phase:
    """Return the next phase; raises RolloutError for an event that the phase does not allow."""
    found = TRANSITIONS.get((phase, event))
    if found is None:
        raise RolloutError(
            f"A rollout that is {phase} does not take {event.value!r}: see vedette cloud rollout status."
        )
    return found
