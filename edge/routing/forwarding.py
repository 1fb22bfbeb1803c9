"""Routing of a screened batch in one pass: select, plan, grant, pack, settle."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge.alarms import Alarm
from edge.routing.budget import UploadBudget
from edge.routing.newest_sample import KeptSample
from edge.routing.packing import Packed, envelope_bytes, pack
from edge.routing.planner import UploadPlan, UploadPlanner
from edge.routing.repeats.filter import RepeatFilter
from edge.routing.router import ACCEPT, ALARM, AUDIT, Router, Routing
from edge.screener import ScreenedBatch, Screener
from edge.settings import RouterSettings
from edge.spool_store import NewSample
from edge.tracing import SampleTraces
from edge.uplink.audit_ledger import NOT_COUNTED, TrackedSample
from shared.miss_control import audit_part, cells_of, seen_part
from shared.modalities.base import PayloadForm
from shared.samples import SampleBatch


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Result of routing a batch of `kept` screened samples.

    `codes`: (kept,) routes as positions in ROUTES. `samples` go to the spool; `sample_ids` are theirs, by place in
    `kept`. `accepted`: (kept,) bool, the samples that count as accepted. `normal`: (kept,) bool, those of them that are
    no near copies: training data of the device. `counts`: by the names of the counters.
    `tracked`: samples whose verdicts tell what the screener misses.
    """

    codes: NDArray[np.int8]
    samples: list[NewSample]
    sample_ids: dict[int, uuid.UUID]
    accepted: NDArray[np.bool_]
    normal: NDArray[np.bool_]
    counts: dict[str, int]
    tracked: list[TrackedSample] = field(default_factory=list)

    @classmethod
    def nothing(cls) -> Self:
        """Return the result for a batch without samples."""
        return cls(np.zeros(0, np.int8), [], {}, np.zeros(0, np.bool_), np.zeros(0, np.bool_), {})


class Forwarder:
    """Routes the batches of one source. `on_alarm` is called for each alarm; `newest` keeps the last sample."""

    def __init__(
        self,
        router: Router,
        settings: RouterSettings,
        budget: UploadBudget,
        on_alarm: Callable[[Alarm], None],
        traces: SampleTraces | None = None,
        repeats: RepeatFilter | None = None,
        newest: KeptSample | None = None,
    ) -> None:
        self._repeats, self._newest = repeats, newest
        self._router, self._planner, self._on_alarm = router, UploadPlanner(settings, budget), on_alarm
        self._traces = traces

    def forward(self, batch: SampleBatch, screened: ScreenedBatch, screener: Screener) -> Forwarded:
        """Route a batch that `screener` has screened, and pack the samples that are sent."""
        self._router.audit_bytes, self._router.sample_bytes = self._planner.audit_bytes, self._planner.sample_bytes
        repeats = self._repeats
        marked = repeats.mark(screened, screener, self._router.forward_p_value) if repeats is not None else None
        selection = self._router.select(screened.p_values, marked)
        plan = self._planner.plan(batch, screened.kept, selection.candidates)
        routing = self._router.grant(selection, plan.cost_bytes)
        packed = pack(batch, screened, routing, screener, plan.form, self._traces)
        self._planner.settle(plan, routing, packed)
        self._raise_alarms(batch, screened, screener, routing, packed)
        accepted = (routing.codes == ACCEPT) & ~routing.held
        normal = accepted if routing.cleared is None else accepted & ~routing.cleared
        repeated = repeats.settle(marked, packed, routing) if repeats is not None else None
        counts = _counts(screened, routing, packed, plan, accepted, repeated)
        if repeats is not None:
            repeats.offer(screened, normal, screener)
        if len(screened.kept):
            self._planner.measure_envelope(
                screener.bundle_id, lambda: envelope_bytes(batch, screened, routing.codes, screener)
            )
            envelopes = self._planner.envelope_bytes * len(screened.kept)
            counts["bytes_screened"] = envelopes + int(plan.source_bytes.sum())
        if self._newest is not None:
            self._newest.keep(batch, screened, routing.codes, screener)
        limited = self._router.settings.max_miss_rate > 0
        tracked = tracked_samples(screened.p_values, routing, packed, counts_all=limited)
        return Forwarded(routing.codes, packed.samples, packed.sample_ids, accepted, normal, counts, tracked)

    def _raise_alarms(
        self, batch: SampleBatch, screened: ScreenedBatch, screener: Screener, routing: Routing, packed: Packed
    ) -> None:
        alarms = np.flatnonzero(routing.codes == ALARM)
        for place, position in zip(alarms.tolist(), screened.kept[alarms].tolist(), strict=True):
            self._on_alarm(
                Alarm(
                    source_id=batch.source_id,
                    origin=batch.origins[position],
                    p_value=float(screened.p_values[place]),
                    captured_at_s=float(batch.captured_at_s[position]),
                    sample_id=str(packed.sample_ids.get(place, "")),
                    bundle_id=screener.bundle_id,
                )
            )


def tracked_samples(
    p_values: NDArray[np.float64], routing: Routing, packed: Packed, *, counts_all: bool
) -> list[TrackedSample]:
    """Return the samples of a batch whose verdicts count, given their p-values (kept,).

    These are audits, and with `counts_all` all samples that were certain to be sent. The others, such as those of a
    batch that the budget does not carry, count only if they were drawn at random. A copy of a sample judged normal
    stays at every threshold, so it has the cell 0.
    """
    probability, drawn, certain = routing.probability, routing.drawn, routing.certain
    if drawn is None or certain is None or probability <= 0:
        return []
    tracked = []
    for place in [*packed.sample_ids, *packed.failed]:
        is_audit = bool(routing.codes[place] == AUDIT)
        if not is_audit and not (counts_all and (drawn[place] or certain[place])):
            continue
        sample_id = packed.sample_ids[place].bytes if place in packed.sample_ids else b""
        if counts_all:
            is_cleared = is_audit and routing.cleared is not None and bool(routing.cleared[place])
            cell = 0 if is_cleared else int(cells_of(p_values[place]))
            part = seen_part(probability) if certain[place] else audit_part(probability)
            tracked.append(TrackedSample(sample_id, cell, is_audit, part))
        else:
            tracked.append(TrackedSample(sample_id, NOT_COUNTED, is_audit, 1.0))
    return tracked


def _counts(
    screened: ScreenedBatch,
    routing: Routing,
    packed: Packed,
    plan: UploadPlan,
    accepted: NDArray[np.bool_],
    repeated: NDArray[np.bool_] | None,
) -> dict[str, int]:
    held = routing.held if repeated is None else routing.held & ~repeated
    audited = int(np.count_nonzero(routing.codes[list(packed.sample_ids)] == AUDIT))
    forwarded = len(packed.samples) - audited
    counts = {
        "samples_screened": len(screened.kept),
        "samples_accepted": int(np.count_nonzero(accepted)),
        "samples_forwarded": forwarded,
        "samples_audited": audited,
        "samples_alarmed": int(np.count_nonzero(routing.codes == ALARM)),
        "samples_unscored": screened.unscored,
        "samples_held": int(np.count_nonzero(held)) + len(packed.failed),
        "samples_repeated": 0 if repeated is None else int(np.count_nonzero(repeated & ~accepted)),
        "samples_reduced": forwarded if plan.form.usual is not PayloadForm.LOSSLESS else 0,
    }
    return {name: count for name, count in counts.items() if count}
