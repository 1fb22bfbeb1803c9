"""What becomes of a screened batch: routes, counts, and the messages of those samples that travel."""

import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge.alarms import Alarm
from edge.routing.budget import UploadBudget
from edge.routing.packing import Packed, envelope_bytes, pack
from edge.routing.payload_tiers import PayloadTiers, Tier, raw_bytes
from edge.routing.router import ACCEPT, ALARM, AUDIT, Router, Routing
from edge.screener import ScreenedBatch, Screener
from edge.spool_store import NewSample
from shared.errors import SampleRejected
from shared.modality import Modality
from shared.samples import SampleBatch

USUAL_ENVELOPE_BYTES = 160  # of a message beside its payload, where none can be made to look at


@dataclass(frozen=True, slots=True)
class Forwarded:
    """`accepted`: (kept,) bool, what counts as normal. `sample_ids`: by position in the order of `kept`."""

    codes: NDArray[np.int8]
    samples: list[NewSample]
    sample_ids: dict[int, uuid.UUID]
    accepted: NDArray[np.bool_]
    counts: dict[str, int]

    @classmethod
    def nothing(cls) -> Self:
        """What becomes of a batch without a sample."""
        return cls(np.zeros(0, np.int8), [], {}, np.zeros(0, np.bool_), {})


class Forwarder:
    """Decides for one source, and packs what travels. `on_alarm` is called for each alarm."""

    def __init__(
        self,
        router: Router,
        budget: UploadBudget,
        tiers: PayloadTiers,
        on_alarm: Callable[[Alarm], None],
    ) -> None:
        self._router, self._budget, self._tiers, self._on_alarm = router, budget, tiers, on_alarm
        self._envelope: tuple[str, int] = ("", USUAL_ENVELOPE_BYTES)  # of the bundle that made the last messages

    def forward(self, batch: SampleBatch, screened: ScreenedBatch, screener: Screener) -> Forwarded:
        """Route a batch that `screener` has screened."""
        # Of rows and windows without a limit in bytes nobody asks for the price: their form is always the same.
        is_asked = self._budget.counts_bytes or (batch.modality is Modality.IMAGE and self._budget.pressure > 0)
        price = _Price(batch, screened, self._tiers, self._envelope[1]) if is_asked else None
        routing = self._router.route(screened.p_values, price or _nothing)
        tier = price.tier if price is not None else Tier.LOSSLESS
        packed = pack(batch, screened, routing, screener, self._tiers, tier)
        if price is not None and packed.samples:
            self._budget.correct(sum(len(sample.data) for sample in packed.samples) - price.estimate(routing))
            self._learn(tier, price, routing, packed)
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
        accepted = routing.codes == ACCEPT
        accepted &= ~routing.held
        counts = _counts(screened, routing, packed, accepted)
        if tier is not Tier.LOSSLESS and packed.samples:
            counts["samples_reduced"] = sum(int(routing.codes[place]) != AUDIT for place in packed.sample_ids)
        if len(screened.kept):
            self._look_at_envelope(batch, screened, routing, screener)
            counts["bytes_screened"] = int(self._envelope[1] * len(screened.kept)) + _payload_bytes(batch, screened)
        return Forwarded(routing.codes, packed.samples, packed.sample_ids, accepted, counts)

    def _learn(self, tier: Tier, price: "_Price", routing: Routing, packed: Packed) -> None:
        """What the tier weighs, from what was just packed in it: audits travel whole, whatever it is."""
        raw = sent = 0.0
        for place, sample in zip(packed.sample_ids, packed.samples, strict=True):
            if routing.codes[place] != AUDIT:
                raw += price.raw(place)
                sent += len(sample.data) - self._envelope[1]
        self._tiers.learn(tier, raw, sent)

    def _look_at_envelope(
        self, batch: SampleBatch, screened: ScreenedBatch, routing: Routing, screener: Screener
    ) -> None:
        """Measure what a message of this bundle weighs beside its payload, once for each bundle."""
        if self._envelope[0] != screener.bundle_id:
            with contextlib.suppress(SampleRejected):
                self._envelope = (screener.bundle_id, envelope_bytes(batch, screened, routing, screener))


class _Price:
    """What the samples of a batch cost to send, about, in the tier that it chooses for those that ought to."""

    def __init__(self, batch: SampleBatch, screened: ScreenedBatch, tiers: PayloadTiers, envelope: int) -> None:
        self._batch, self._kept, self._tiers, self._envelope = batch, screened.kept, tiers, envelope
        self._raw = np.zeros(len(screened.kept))
        self.tier = Tier.LOSSLESS

    def __call__(self, places: NDArray[np.intp]) -> NDArray[np.float64]:
        batch = self._batch
        for place in places.tolist():
            position = int(self._kept[place])
            self._raw[place] = raw_bytes(batch.values[position], batch.encoded, position)
        self.tier = self._tiers.choose(float(self._raw[places].sum()), batch.modality)
        return self._cost(places)

    def estimate(self, routing: Routing) -> float:
        """What was paid for what travels, in bytes."""
        return float(self._cost(np.flatnonzero(routing.travels)).sum())

    def raw(self, place: int) -> float:
        """What a sample weighs as the source gave it, in bytes."""
        return float(self._raw[place])

    def _cost(self, places: NDArray[np.intp]) -> NDArray[np.float64]:
        cost: NDArray[np.float64] = self._envelope + self._raw[places] * self._tiers.weight(self.tier)
        return cost


def _nothing(places: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.zeros(len(places))


def _counts(screened: ScreenedBatch, routing: Routing, packed: Packed, accepted: NDArray[np.bool_]) -> dict[str, int]:
    audited = np.count_nonzero(routing.codes[list(packed.sample_ids)] == AUDIT)
    counts = {
        "samples_screened": len(screened.kept),
        "samples_accepted": int(np.count_nonzero(accepted)),
        "samples_forwarded": len(packed.samples) - int(audited),
        "samples_audited": int(audited),
        "samples_alarmed": int(np.count_nonzero(routing.codes == ALARM)),
        "samples_unscored": screened.unscored,
        "samples_held": int(np.count_nonzero(routing.held)) + len(packed.failed),
    }
    return {name: count for name, count in counts.items() if count}


def _payload_bytes(batch: SampleBatch, screened: ScreenedBatch) -> int:
    """The size of the samples as the source gave them: image files, or float32."""
    if isinstance(batch.values, np.ndarray):
        return len(screened.kept) * (batch.values.nbytes // len(batch))
    return sum(raw_bytes(batch.values[place], batch.encoded, place) for place in screened.kept.tolist())
