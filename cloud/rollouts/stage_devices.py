"""Devices of the stages of a rollout by state: all of them as counts, and some by name."""

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from cloud.rollouts.stages import Stage, place_in_order

MAX_LISTED = 40
"""Devices of a stage that are named, those with trouble first."""


class RolloutState(StrEnum):
    """State of a device in a rollout, the worst first."""

    WENT_BACK = "went back"  # it tried the new bundle and runs the one before
    SILENT = "silent"
    IDLE = "delivers nothing"
    FETCHES = "fetches it"  # its stage has begun, and it does not run the new bundle yet
    RUNS = "runs it"
    LATER = "later"  # its stage has not begun


_ORDER = {state: place for place, state in enumerate(RolloutState)}


class ListedDevice(BaseModel):
    """One device with its state."""

    model_config = ConfigDict(frozen=True)

    device_id: str
    state: RolloutState


class StageDevices(BaseModel):
    """Devices that a stage adds: their number by state, and at most MAX_LISTED by id, those with trouble first."""

    model_config = ConfigDict(frozen=True)

    counts: dict[RolloutState, int] = Field(default_factory=dict)
    listed: tuple[ListedDevice, ...] = ()


def devices_by_stage(
    stages: Sequence[Stage], bundle_id: str, states: Iterable[tuple[str, RolloutState]]
) -> tuple[StageDevices, ...]:
    """Return the devices of each stage, each in the first stage that includes it; `states`: ids and states."""
    members: list[list[tuple[str, RolloutState]]] = [[] for _ in stages]
    for device_id, state in states:
        order = place_in_order(device_id, bundle_id)
        for place, stage in enumerate(stages):
            if order < stage.percent / 100 or device_id in stage.devices:
                members[place].append((device_id, state))
                break
    return tuple(_stage_devices(found) for found in members)


def _stage_devices(found: list[tuple[str, RolloutState]]) -> StageDevices:
    counts = Counter(state for _, state in found)
    found.sort(key=lambda item: (_ORDER[item[1]], item[0]))
    return StageDevices(
        counts={state: counts[state] for state in RolloutState if counts[state]},
        listed=tuple(ListedDevice(device_id=device_id, state=state) for device_id, state in found[:MAX_LISTED]),
    )
