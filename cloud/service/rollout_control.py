"""Control of the rollouts: watch their devices, evaluate the gates, begin the next stage or halt.

All state is in the store, so that a restarted service goes on where it stopped.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from cloud.rollouts.gates import GateResult, all_passed, gates, halting
from cloud.rollouts.observation import Observation, ScreeningCounts, Tally, total
from cloud.rollouts.phases import RolloutEvent, RolloutPhase
from cloud.rollouts.stage_devices import RolloutState, StageDevices, devices_by_stage
from cloud.service.metrics import Metrics
from cloud.store import Store
from cloud.store.rollout_devices import CountedVerdicts, Member, Report, count_verdicts, members, reports, save_members
from cloud.store.rollouts import StagedRollout, active_rollouts, change, save_progress
from shared.errors import RolloutError, StorageError
from shared.logs import EventLog

SETTLED_S = 2.0  # a verdict is stored by then, so that the key of the last counted one can only grow
_LOG = EventLog("rollouts")


class RolloutControl:
    """Owner of the rollouts in a service: it alone moves them from stage to stage, and halts them."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        *,
        check_every_s: float,
        late_after_s: float,
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._store, self._metrics, self._on_failure = store, metrics, on_failure
        self._check_every_s, self._late_after_s = check_every_s, late_after_s

    async def run(self) -> None:
        """Check the rollouts until cancelled."""
        while True:
            try:
                await self.check(time.time())
            except StorageError as error:
                self._on_failure(error)
            await asyncio.sleep(self._check_every_s)

    async def check(self, now_s: float) -> None:
        """Check every rollout that is under way or paused once; raises StorageError."""
        async with self._store.reading() as connection:
            active = await active_rollouts(connection)
        self._metrics.rollout_stage.clear()
        for rollout in active:
            self._metrics.rollout_stage.labels(rollout.bundle_name).set(rollout.stage + 1)
            try:
                await self._check_one(rollout, now_s)
            except RolloutError as error:  # a command changed it meanwhile
                _LOG.info("rollout_changed", bundle=rollout.bundle_id, reason=error)

    async def _check_one(self, rollout: StagedRollout, now_s: float) -> None:
        async with self._store.reading() as connection:
            found = await reports(connection, rollout.bundle_name)
            known = await members(connection, rollout)
            counted = await count_verdicts(connection, rollout, now_s - SETTLED_S)
        watched = await asyncio.to_thread(watch, rollout, found, known, counted, now_s, self._late_after_s)
        seen, changed = watched.observation, watched.changed
        results = gates(rollout.stages[rollout.stage], seen, rollout.limits)
        event = _event(rollout, results)
        async with self._store.writing() as connection:
            await save_members(connection, rollout, changed)
            await save_progress(connection, rollout, results, watched.devices, counted.tallies, counted.last)
            if event is not None:
                reason = halting(results) or " ".join(result.text for result in results)
                actor = self._store.actor
                after = await change(
                    connection,
                    actor,
                    rollout,
                    event,
                    author=actor,
                    reason=reason,
                    now_s=now_s,
                    samples=seen.new.screened,
                )
        if event is not None:
            self._report(rollout, after, event, reason)

    def _report(self, before: StagedRollout, after: StagedRollout, event: RolloutEvent, reason: str) -> None:
        facts = {"bundle": before.bundle_id, "stage": before.stages[before.stage].name, "phase": after.phase.value}
        if event is RolloutEvent.FAILED:
            _LOG.error("rollout_halted", **facts, reason=reason, advice=f"devices return to {before.before_bundle_id}")
        else:
            _LOG.info("rollout_stage_passed", **facts)
        if after.phase in (RolloutPhase.COMPLETED, RolloutPhase.HALTED):
            self._metrics.rollouts.labels(after.phase.value).inc()


def _event(rollout: StagedRollout, results: Sequence[GateResult]) -> RolloutEvent | None:
    """Return what the gates do to the rollout; a paused one can only be halted."""
    if halting(results):
        return RolloutEvent.FAILED
    if rollout.phase is RolloutPhase.PAUSED or not all_passed(results):
        return None
    return RolloutEvent.FINISHED if rollout.stage == len(rollout.stages) - 1 else RolloutEvent.PASSED


@dataclass(frozen=True, slots=True)
class _Seen:
    """One device of a rollout with its newest report."""

    report: Report
    member: Member
    is_included: bool
    is_silent: bool
    runs_new: bool

    @property
    def is_unhealthy(self) -> bool:
        return self.is_silent or self.report.broken

    @property
    def has_failed(self) -> bool:
        """Whether the device tried the new bundle and went back, by a new warning or by the bundle it runs."""
        since_s = self.member.wanted_at_s
        if self.runs_new or since_s is None or self.report.received_at_s <= since_s:
            return False
        return self.member.swapped is not None or bool(set(self.report.warnings) - set(self.member.warnings))

    @property
    def state(self) -> RolloutState:
        """State of the device, as pages show it."""
        if not self.is_included:
            return RolloutState.LATER
        if self.has_failed:
            return RolloutState.WENT_BACK
        if self.is_silent:
            return RolloutState.SILENT
        if not self.runs_new:
            return RolloutState.FETCHES
        return RolloutState.IDLE if self.report.broken else RolloutState.RUNS


@dataclass(frozen=True, slots=True)
class Watched:
    """State of a rollout at one check: the observation for the gates, new or changed devices, devices by stage."""

    observation: Observation
    changed: list[Member]
    devices: tuple[StageDevices, ...]


def watch(
    rollout: StagedRollout,
    found: Sequence[Report],
    known: Mapping[str, Member],
    counted: CountedVerdicts,
    now_s: float,
    late_after_s: float,
) -> Watched:
    """Return the state of the rollout. Blocking: it takes a second for a large fleet."""
    seen = [
        _see(rollout, report, known.get(report.device_id), counted.added.get(report.device_id), now_s, late_after_s)
        for report in found
    ]
    changed = [each.member for each in seen if each.member != known.get(each.member.device_id)]
    inside = [each for each in seen if each.is_included]
    outside = [each for each in seen if not each.is_included]
    running = [each for each in inside if each.runs_new]
    new_by_device = [_since(each, each.member.swapped) for each in running]
    new = total(new_by_device)
    observation = Observation(
        stage_s=now_s - rollout.stage_started_at_s,
        stage_samples=max(0.0, new.screened - rollout.stage_started_samples),
        wanted=sum(each.runs_new or not each.is_silent for each in inside),
        running=len(running),
        failed=[each.report.device_id for each in inside if each.has_failed],
        unhealthy=[each.report.device_id for each in running if each.is_unhealthy],
        others=len(outside),
        others_unhealthy=sum(each.is_unhealthy for each in outside),
        new=new,
        new_by_device=new_by_device,
        before=total([each.member.swapped for each in running if each.member.swapped is not None]),
        rest=total([_since(each, each.member.first) for each in outside]),
        new_verdicts=counted.tallies[rollout.bundle_id],
        old_verdicts=counted.tallies[rollout.before_bundle_id],
        new_verdicts_by_device=[each.member.tally for each in inside],
    )
    states = ((each.report.device_id, each.state) for each in seen)
    return Watched(observation, changed, devices_by_stage(rollout.stages, rollout.bundle_id, states))


def _see(
    rollout: StagedRollout,
    report: Report,
    known: Member | None,
    added: Tally | None,
    now_s: float,
    late_after_s: float,
) -> _Seen:
    member = known or Member(report.device_id, report.counts)
    if added is not None:
        member = replace(member, tally=member.tally.plus(added))
    is_included = rollout.includes(report.device_id)
    if is_included and member.wanted_at_s is None:
        member = replace(member, wanted_at_s=now_s, warnings=report.warnings)
    runs_new = report.bundle_ids == {rollout.bundle_id}
    if is_included and runs_new and member.swapped is None:
        member = replace(member, swapped=report.counts)
    is_silent = now_s - report.received_at_s > late_after_s
    return _Seen(report, member, is_included, is_silent, runs_new)


def _since(seen: _Seen, earlier: ScreeningCounts | None) -> ScreeningCounts:
    return seen.report.counts.since(earlier) if earlier is not None else ScreeningCounts()
