"""Upload plan of a batch: cost of its samples, and the payload form that budget and link allow.

Quality is reduced before samples are left out. The next form follows the fill of the budget's bucket and of the queue,
as adaptive streaming follows its buffer (Huang et al., "A buffer-based approach to rate adaptation", SIGCOMM 2014):
with k allowed forms, form i is chosen while less than i / k of both is used up.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.routing.budget import UploadBudget
from edge.routing.packing import Packed, SentForm
from edge.routing.router import AUDIT, Routing
from edge.settings import RouterSettings
from shared.errors import SampleRejected
from shared.modalities import sample_type
from shared.modalities.base import FormSettings, PayloadForm
from shared.modality import Modality
from shared.samples import SampleBatch

DEFAULT_ENVELOPE_BYTES = 160  # of a message without its payload, until one was measured
NEWEST_WEIGHT = 0.1  # of the newest batch in the measured share of a form
# First guess of the bytes sent for one byte of the source.
EXPECTED_SHARES = {
    PayloadForm.LOSSLESS: 1.0,
    PayloadForm.JPEG: 0.2,
    PayloadForm.H264: 0.1,
    PayloadForm.CROP: 0.05,
    PayloadForm.FEATURES: 0.01,
}
COMPLETE_FORMS = (PayloadForm.H264, PayloadForm.JPEG, PayloadForm.LOSSLESS)  # show the whole sample


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """Sizes and payload form of one batch.

    `source_bytes`: (kept,) size of each sample as its source delivered it. `cost_bytes`: (candidates,) estimated size
    of the messages of the candidates, zeros where the price decides nothing.
    """

    form: SentForm
    source_bytes: NDArray[np.float64]
    cost_bytes: NDArray[np.float64]
    is_priced: bool


class UploadPlanner:
    """Plans for one source, and learns what each form costs there."""

    def __init__(self, settings: RouterSettings, budget: UploadBudget) -> None:
        self._settings, self._budget = settings, budget
        self._shares = dict(EXPECTED_SHARES)
        self._measured_bundle_id, self.envelope_bytes = "", DEFAULT_ENVELOPE_BYTES
        self.audit_bytes, self.sample_bytes = 0.0, 0.0  # usual sizes of messages, 0 while unknown

    def plan(self, batch: SampleBatch, kept: NDArray[np.intp], candidates: NDArray[np.intp]) -> UploadPlan:
        """Return the plan for a batch; `candidates` are places in `kept`, the samples that the router wants to send."""
        forms = self.allowed_forms(batch.modality)
        source_bytes = _source_bytes(batch, kept)
        # Without a limit in bytes, the price only matters if a smaller form may be needed.
        if not self._budget.counts_bytes and (len(forms) == 1 or not self._budget.pressure):
            form = self._sent_form(forms, forms[0], len(candidates))
            return UploadPlan(form, source_bytes, np.zeros(len(candidates)), is_priced=False)
        if not self.audit_bytes and len(source_bytes):
            self.audit_bytes = self.sample_bytes = self.envelope_bytes + float(source_bytes.mean())
        wanted_bytes = source_bytes[candidates]
        chosen = self.choose_form(batch.modality, float(wanted_bytes.sum())) if len(candidates) else forms[0]
        cost_bytes = self.envelope_bytes + wanted_bytes * self._shares[chosen]
        return UploadPlan(self._sent_form(forms, chosen, len(candidates)), source_bytes, cost_bytes, is_priced=True)

    def allowed_forms(self, modality: Modality) -> tuple[PayloadForm, ...]:
        """Return the forms of a modality that the settings allow, the most faithful first; at least one."""
        allowed = tuple(form for form in sample_type(modality).forms if form in self._settings.payloads)
        return allowed or (PayloadForm.LOSSLESS,)

    def choose_form(self, modality: Modality, source_bytes: float) -> PayloadForm:
        """Return the form for samples of `source_bytes` in all, the smallest one if the budget affords none."""
        forms = self.allowed_forms(modality)
        for number, form in enumerate(forms, start=1):
            if self._budget.affords(source_bytes * self._shares[form], number / len(forms)):
                return form
        return forms[-1]

    def settle(self, plan: UploadPlan, routing: Routing, packed: Packed) -> None:
        """Correct the budget by the real size of the messages, and learn the share of the plan's form."""
        if not plan.is_priced or not packed.samples:
            return
        self._budget.correct(sum(len(sample.data) for sample in packed.samples) - routing.charged_bytes)
        source = sent = 0.0
        for place, sample in zip(packed.sample_ids, packed.samples, strict=True):
            size_bytes = len(sample.data)
            if routing.codes[place] == AUDIT:  # audits have a form of their own
                self.audit_bytes += NEWEST_WEIGHT * (size_bytes - self.audit_bytes)
            else:
                source += plan.source_bytes[place]
                sent += size_bytes - self.envelope_bytes
                self.sample_bytes += NEWEST_WEIGHT * (size_bytes - self.sample_bytes)
        if source > 0:
            form = plan.form.usual
            self._shares[form] += NEWEST_WEIGHT * (sent / source - self._shares[form])

    def measure_envelope(self, bundle_id: str, measure: Callable[[], int]) -> None:
        """Learn the size of a message without its payload, once for each bundle; `measure` may raise SampleRejected."""
        if bundle_id != self._measured_bundle_id:
            try:
                self.envelope_bytes = measure()
            except SampleRejected:
                return
            self._measured_bundle_id = bundle_id

    def _sent_form(self, allowed: tuple[PayloadForm, ...], form: PayloadForm, candidates: int) -> SentForm:
        affordable_bytes = self._affordable_bytes(candidates)
        settings = FormSettings(self._settings.jpeg_quality, affordable_bytes)
        return SentForm(form, complete_form(allowed, form), settings)

    def _affordable_bytes(self, candidates: int) -> int:
        """Return the bytes that the budget has for each candidate; 0 without a limit."""
        available_bytes = self._budget.available_bytes()  # read once: the limit can change between two reads
        if not math.isfinite(available_bytes):
            return 0
        return max(1, int(available_bytes / max(candidates, 1)))


def complete_form(allowed: tuple[PayloadForm, ...], form: PayloadForm) -> PayloadForm:
    """Return `form` if it shows the whole sample, else the smallest allowed form that does, else LOSSLESS."""
    if form in COMPLETE_FORMS:
        return form
    return next((complete for complete in COMPLETE_FORMS if complete in allowed), PayloadForm.LOSSLESS)


def _source_bytes(batch: SampleBatch, kept: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the size (kept,) of each sample as its source delivered it: file bytes where there are some."""
    kind, values, encoded = sample_type(batch.modality), batch.values, batch.encoded
    if encoded is None and isinstance(values, np.ndarray):
        return np.full(len(kept), kind.source_bytes(values[0], None) if len(values) else 0, dtype=np.float64)
    sizes = [
        kind.source_bytes(values[position], encoded[position] if encoded is not None else None)
        for position in kept.tolist()
    ]
    return np.array(sizes, dtype=np.float64)
