"""Routing of a screened batch in one pass: select, plan, grant, pack, settle."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge.alarms import Alarm
from edge.routing.budget import UploadBudget
from edge.routing.packing import Packed, envelope_bytes, pack
from edge.routing.planner import UploadPlan, UploadPlanner
from edge.routing.router import ACCEPT, ALARM, AUDIT, Router, Routing
from edge.screener import ScreenedBatch, Screener
from edge.settings import RouterSettings
from edge.spool_store import NewSample
from edge.tracing import SampleTraces
from shared.modalities.base import PayloadForm
from shared.samples import SampleBatch


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Result of routing a batch of `kept` screened samples.

    `codes`: (kept,) routes as positions in ROUTES. `samples` go to the spool; `sample_ids` are theirs, by place in
    `kept`. `accepted`: (kept,) bool, the samples that count as normal. `counts`: by the names of the counters.
    """

    codes: NDArray[np.int8]
    samples: list[NewSample]
    sample_ids: dict[int, uuid.UUID]
    accepted: NDArray[np.bool_]
    counts: dict[str, int]

    @classmethod
    def nothing(cls) -> Self:
        """Return the result for a batch without samples."""
        return cls(np.zeros(0, np.int8), [], {}, np.zeros(0, np.bool_), {})


class Forwarder:
    """Routes the batches of one source. `on_alarm` is called for each alarm."""

    def __init__(
        self,
        router: Router,
        settings: RouterSettings,
        budget: UploadBudget,
        on_alarm: Callable[[Alarm], None],
        traces: SampleTraces | None = None,
    ) -> None:
        self._router, self._planner, self._on_alarm = router, UploadPlanner(settings, budget), on_alarm
        self._traces = traces

    def forward(self, batch: SampleBatch, screened: ScreenedBatch, screener: Screener) -> Forwarded:
        """Route a batch that `screener` has screened, and pack the samples that are sent."""
        selection = self._router.select(screened.p_values)
        plan = self._planner.plan(batch, screened.kept, selection.candidates)
        routing = self._router.grant(selection, plan.cost_bytes)
        packed = pack(batch, screened, routing, screener, plan.form, self._traces)
        self._planner.settle(plan, routing, packed)
        self._raise_alarms(batch, screened, screener, routing, packed)
        accepted = (routing.codes == ACCEPT) & ~routing.held
        counts = _counts(screened, routing, packed, plan, accepted)
        if len(screened.kept):
            self._planner.measure_envelope(
                screener.bundle_id, lambda: envelope_bytes(batch, screened, routing.codes, screener)
            )
            envelopes = self._planner.envelope_bytes * len(screened.kept)
            counts["bytes_screened"] = envelopes + int(plan.source_bytes.sum())
        return Forwarded(routing.codes, packed.samples, packed.sample_ids, accepted, counts)

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


def _counts(
    screened: ScreenedBatch, routing: Routing, packed: Packed, plan: UploadPlan, accepted: NDArray[np.bool_]
) -> dict[str, int]:
    audited = int(np.count_nonzero(routing.codes[list(packed.sample_ids)] == AUDIT))
    forwarded = len(packed.samples) - audited
    counts = {
        "samples_screened": len(screened.kept),
        "samples_accepted": int(np.count_nonzero(accepted)),
        "samples_forwarded": forwarded,
        "samples_audited": audited,
        "samples_alarmed": int(np.count_nonzero(routing.codes == ALARM)),
        "samples_unscored": screened.unscored,
        "samples_held": int(np.count_nonzero(routing.held)) + len(packed.failed),
        "samples_reduced": forwarded if plan.form.usual is not PayloadForm.LOSSLESS else 0,
    }
    return {name: count for name, count in counts.items() if count}
