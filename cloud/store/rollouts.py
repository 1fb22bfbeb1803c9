"""Rollouts in stages: their rows, and the only function that changes their phase.

Commands and the service's control change rollouts from several processes. Each change runs in a write transaction that
reads the row first, so that of two changes the second sees the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.rollouts.gates import GateResult
from cloud.rollouts.limits import DEFAULT_LIMITS, RolloutLimits
from cloud.rollouts.observation import Tally
from cloud.rollouts.phases import ACTIVE, RolloutEvent, RolloutPhase, following
from cloud.rollouts.stage_devices import StageDevices
from cloud.rollouts.stages import Stage, unknown_devices
from cloud.store import audit
from cloud.store.engine import Store
from cloud.store.events import BundleChange, add_bundle_change
from cloud.store.registry import RegisteredBundle, current_bundles, set_current, versions_of
from cloud.store.schema import devices, rollout_history, staged_rollouts
from shared.errors import BundleError, RolloutError, SettingsError

START = "start"
REFERENCE_S = 86_400.0  # verdicts before the start that count for the bundle before
MAX_TRIAL_DEVICES = 200  # of a group, which become named devices of the first stage
_MAX_AUTHOR, _MAX_REASON = 128, 1024


@dataclass(frozen=True, slots=True)
class StagedRollout:
    """Rollout in stages; `tallies` holds the verdicts counted so far by bundle id.

    `devices`: those of each stage at the last check; empty before the first one.
    """

    number: int
    bundle_name: str
    bundle_id: str
    before_bundle_id: str
    phase: RolloutPhase
    stages: tuple[Stage, ...]
    stage: int
    started_at_s: float
    stage_started_at_s: float
    stage_started_samples: float
    ended_at_s: float | None
    limits: RolloutLimits
    gates: tuple[GateResult, ...]
    tallies: Mapping[str, Tally]
    counted_judged_at_s: float
    counted_number: int
    devices: tuple[StageDevices, ...] = ()

    def includes(self, device_id: str) -> bool:
        """Return whether a stage that has begun includes the device, and the rollout is not over."""
        begun = self.stages[: self.stage + 1]
        return self.phase in ACTIVE and any(stage.includes(device_id, self.bundle_id) for stage in begun)


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change of a rollout: who made it and why."""

    at_s: float
    event: str
    phase: str
    stage: int
    author: str
    reason: str


async def active_rollouts(connection: AsyncConnection) -> list[StagedRollout]:
    """Return the rollouts that are under way or paused, ordered by name."""
    query = select(staged_rollouts).where(staged_rollouts.c.ended_at_s.is_(None))
    query = query.order_by(staged_rollouts.c.bundle_name)
    return [_rollout(row) for row in (await connection.execute(query)).mappings()]


async def newest_rollout(connection: AsyncConnection, name: str) -> StagedRollout | None:
    """Return the newest rollout of a name, under way or over, or None."""
    query = select(staged_rollouts).where(staged_rollouts.c.bundle_name == name)
    query = query.order_by(staged_rollouts.c.number.desc()).limit(1)
    row = (await connection.execute(query)).mappings().one_or_none()
    return _rollout(row) if row is not None else None


async def one_rollout(connection: AsyncConnection, number: int) -> StagedRollout | None:
    """Return a rollout by its number, or None."""
    query = select(staged_rollouts).where(staged_rollouts.c.number == number)
    row = (await connection.execute(query)).mappings().one_or_none()
    return _rollout(row) if row is not None else None


async def rollout_page(
    connection: AsyncConnection, *, name: str = "", before: int | None = None, size: int = 50
) -> list[StagedRollout]:
    """Return the newest `size` rollouts (of a name), or the next ones older than the rollout number `before`."""
    query = select(staged_rollouts).order_by(staged_rollouts.c.number.desc()).limit(size)
    if name:
        query = query.where(staged_rollouts.c.bundle_name == name)
    if before is not None:
        query = query.where(staged_rollouts.c.number < before)
    return [_rollout(row) for row in (await connection.execute(query)).mappings()]


async def history_of(connection: AsyncConnection, number: int) -> list[HistoryEntry]:
    """Return the changes of a rollout in their order."""
    columns = (column for column in rollout_history.c if column.name not in ("number", "rollout"))
    query = select(*columns).where(rollout_history.c.rollout == number).order_by(rollout_history.c.number)
    return [HistoryEntry(**row) for row in (await connection.execute(query)).mappings()]


async def devices_for(connection: AsyncConnection, stages: Sequence[Stage]) -> Sequence[str]:
    """Return all devices; raise SettingsError for a stage that names a device that is not enrolled."""
    known = (await connection.execute(select(devices.c.device_id))).scalars().all()
    if missing := unknown_devices(stages, set(known)):
        raise SettingsError(f"No device {missing[0]!r} is enrolled: list the devices with vedette cloud devices.")
    return known


async def begin(
    store: Store,
    name: str,
    bundle_id: str,
    stages: Sequence[Stage],
    *,
    author: str,
    reason: str,
    now_s: float,
    limits: RolloutLimits = DEFAULT_LIMITS,
    actor: str | None = None,
) -> StagedRollout:
    """Start a rollout with its first stage and return it; the caller has verified the bundle.

    Raises RolloutError if one of the name is not over, BundleError for an unknown bundle, for the current one or for a
    name without a current one, SettingsError for a stage that names a device that is not enrolled.
    """
    async with store.writing() as connection:
        before = await _before(connection, name, bundle_id)
        known = await devices_for(connection, stages)
        values = {
            "bundle_name": name,
            "bundle_id": bundle_id,
            "before_bundle_id": before.bundle_id,
            "phase": RolloutPhase.UNDER_WAY.value,
            "stages": [stage.model_dump(mode="json") for stage in stages],
            "stage": 0,
            "started_at_s": now_s,
            "stage_started_at_s": now_s,
            "stage_started_samples": 0.0,
            "limits": limits.model_dump(mode="json"),
            "gates": [],
            "tallies": {},
            "counted_judged_at_s": now_s - REFERENCE_S,
            "counted_number": 0,
        }
        await connection.execute(insert(staged_rollouts).values(values))
        started = await newest_rollout(connection, name)
        assert started is not None
        await _note(connection, started, START, author, reason, now_s)
        names = ("stages", "limits")
        details = {"name": name, "before": before.bundle_id, "reason": reason} | {key: values[key] for key in names}
        await audit.record(connection, actor or store.actor, audit.AuditAction.ROLLOUT_STARTED, bundle_id, **details)
        await _tell(connection, started, started.bundle_id, now_s, [each for each in known if started.includes(each)])
    return started


async def group_trial(store: Store, group: str) -> str:
    """Return the trial with all devices of a group, as `parse_stages` takes it.

    Raises SettingsError if the group has no device, or more than MAX_TRIAL_DEVICES.
    """
    query = select(devices.c.device_id).where(devices.c.group_name == group, devices.c.revoked_at_s.is_(None))
    async with store.reading() as connection:
        query = query.order_by(devices.c.device_id).limit(MAX_TRIAL_DEVICES + 1)
        found = (await connection.execute(query)).scalars().all()
    if not found:
        raise SettingsError(f"No device is in the group {group!r}: choose another group, or name devices.")
    if len(found) > MAX_TRIAL_DEVICES:
        raise SettingsError(
            f"The group {group!r} has more than {MAX_TRIAL_DEVICES} devices: try the bundle on a share, such as 5 %."
        )
    return f"trial={','.join(found)}"


async def command(
    store: Store,
    name: str,
    event: RolloutEvent,
    *,
    author: str,
    reason: str,
    now_s: float,
    actor: str | None = None,
    number: int | None = None,
) -> StagedRollout:
    """Pause, resume or take back the rollout of a name; return it. `number`: only if it is still this rollout.

    Raises RolloutError if none is under way, or if its phase does not allow the event.
    """
    async with store.writing() as connection:
        newest = await newest_rollout(connection, name)
        if newest is None or newest.phase not in ACTIVE:
            raise RolloutError(f"No rollout of {name!r} is under way: see vedette cloud rollout status {name}.")
        if number is not None and newest.number != number:
            raise RolloutError(f"This rollout of {name!r} has ended, and another one is under way: look at that one.")
        by = actor or store.actor
        return await change(connection, by, newest, event, author=author, reason=reason, now_s=now_s)


async def change(
    connection: AsyncConnection,
    actor: str,
    seen: StagedRollout,
    event: RolloutEvent,
    *,
    author: str,
    reason: str,
    now_s: float,
    samples: float = 0.0,
) -> StagedRollout:
    """Apply an event inside the write transaction of `connection`; return the rollout after it.

    `actor` is named in the audit log, `author` in the history. `samples`: number that the new bundle has screened so
    far, where the next stage begins counting. Raises RolloutError if the rollout has changed since it was `seen`, or if
    its phase does not allow the event.
    """
    newest = await newest_rollout(connection, seen.bundle_name)
    if newest is None or (newest.number, newest.phase, newest.stage) != (seen.number, seen.phase, seen.stage):
        raise RolloutError(f"The rollout of {seen.bundle_name!r} was changed at the same time: run the command again.")
    phase = following(newest.phase, event)
    values: dict[str, Any] = {"phase": phase.value}
    if phase not in ACTIVE:
        values["ended_at_s"] = now_s
    if event is RolloutEvent.PASSED:
        values |= {"stage": newest.stage + 1, "stage_started_at_s": now_s, "stage_started_samples": samples}
    this = staged_rollouts.c.number == newest.number
    await connection.execute(update(staged_rollouts).where(this).values(values))
    changed = await newest_rollout(connection, newest.bundle_name)
    assert changed is not None
    await _note(connection, changed, event.value, author, reason, now_s)
    details = {"name": changed.bundle_name, "event": event.value, "phase": phase.value, "reason": reason}
    await audit.record(connection, actor, audit.AuditAction.ROLLOUT_CHANGED, changed.bundle_id, **details)
    known = (await connection.execute(select(devices.c.device_id))).scalars().all()
    if phase is RolloutPhase.COMPLETED:
        await set_current(connection, actor, changed.bundle_name, changed.bundle_id)
    elif phase not in ACTIVE:
        returning = [each for each in known if newest.includes(each)]
        await _tell(connection, changed, changed.before_bundle_id, now_s, returning)
    elif event is RolloutEvent.PASSED:
        added = [each for each in known if changed.includes(each) and not newest.includes(each)]
        await _tell(connection, changed, changed.bundle_id, now_s, added)
    return changed


async def save_progress(
    connection: AsyncConnection,
    rollout: StagedRollout,
    gates: Sequence[GateResult],
    stage_devices: Sequence[StageDevices],
    tallies: Mapping[str, Tally],
    counted: tuple[float, int],
) -> None:
    """Store what the gates saw last, the devices of each stage, and the verdicts counted up to the key `counted`."""
    values = {
        "gates": [gate.model_dump(mode="json") for gate in gates],
        "devices": [each.model_dump(mode="json") for each in stage_devices],
        "tallies": {bundle_id: asdict(tally) for bundle_id, tally in tallies.items()},
        "counted_judged_at_s": counted[0],
        "counted_number": counted[1],
    }
    this = staged_rollouts.c.number == rollout.number
    await connection.execute(update(staged_rollouts).where(this).values(values))


async def _before(connection: AsyncConnection, name: str, bundle_id: str) -> RegisteredBundle:
    """Return the current bundle of a name, after the checks of `begin`."""
    newest = await newest_rollout(connection, name)
    if newest is not None and newest.phase in ACTIVE:
        raise RolloutError(
            f"A rollout of {name!r} to {newest.bundle_id} is {newest.phase}: wait for its end, or end it with vedette "
            f"cloud rollout back {name}."
        )
    if bundle_id not in [entry.bundle_id for entry in await versions_of(connection, name)]:
        raise BundleError(f"{bundle_id!r} is not a bundle named {name!r} in the registry: publish it first.")
    for current in await current_bundles(connection):
        if current.name == name and current.bundle_id != bundle_id:
            return current
        if current.name == name:
            raise BundleError(f"{bundle_id} is the current bundle of {name!r} already.")
    raise BundleError(f"{name!r} has no current bundle to compare with: give --now.")


async def _note(
    connection: AsyncConnection, rollout: StagedRollout, event: str, author: str, reason: str, now_s: float
) -> None:
    values = {
        "rollout": rollout.number,
        "at_s": now_s,
        "event": event,
        "phase": rollout.phase.value,
        "stage": rollout.stage,
        "author": author[:_MAX_AUTHOR],
        "reason": reason[:_MAX_REASON],
    }
    await connection.execute(insert(rollout_history).values(values))


async def _tell(
    connection: AsyncConnection, rollout: StagedRollout, bundle_id: str, now_s: float, device_ids: Sequence[str]
) -> None:
    await add_bundle_change(connection, BundleChange(rollout.bundle_name, bundle_id), now_s, device_ids)


def _rollout(row: Mapping[Any, Any]) -> StagedRollout:
    values = dict(row) | {
        "phase": RolloutPhase(row["phase"]),
        "stages": tuple(Stage.model_validate(stage) for stage in row["stages"]),
        "limits": RolloutLimits.model_validate(row["limits"] or {}),
        "gates": tuple(GateResult.model_validate(gate) for gate in row["gates"]),
        "tallies": {bundle_id: Tally(**tally) for bundle_id, tally in row["tallies"].items()},
        "devices": tuple(StageDevices.model_validate(each) for each in row["devices"] or ()),
    }
    return StagedRollout(**values)
