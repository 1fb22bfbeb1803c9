"""Upload plan of a batch: what its samples cost, and the payload form that budget and link allow.

Quality is reduced before samples are left out. The next form follows the fill of the budget's bucket and of the queue,
as adaptive streaming follows its buffer (Huang et al., "A buffer-based approach to rate adaptation", SIGCOMM 2014):
with k allowed forms, form i is chosen while less than i / k of both is used up.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.routing.budget import UploadBudget
from edge.routing.image_forms import ImageForms
from edge.routing.packing import Packed
from edge.routing.payload_forms import LosslessOnly, PayloadForms
from edge.routing.router import AUDIT, Routing
from edge.settings import RouterSettings
from shared.errors import SampleRejected
from shared.modality import Modality
from shared.samples import SampleBatch

DEFAULT_ENVELOPE_BYTES = 160  # of a message without its payload, until one was measured
NEWEST_WEIGHT = 0.1  # of the newest batch in the measured share of a form


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """Sizes and payload form of one batch.

    `source_bytes`: (kept,) size of each sample as its source delivered it. `cost_bytes`: (candidates,) estimated size
    of the messages of the candidates; zeros where nobody limits bytes.
    """

    forms: PayloadForms
    form: str
    source_bytes: NDArray[np.float64]
    cost_bytes: NDArray[np.float64]
    is_priced: bool


class UploadPlanner:
    """Plans for one source, and learns what each form costs there."""

    def __init__(self, settings: RouterSettings, budget: UploadBudget) -> None:
        self._settings, self._budget = settings, budget
        self._forms: PayloadForms | None = None
        self._shares: dict[str, float] = {}  # bytes sent for one byte of the source, by form
        self._measured_bundle_id, self.envelope_bytes = "", DEFAULT_ENVELOPE_BYTES

    def plan(self, batch: SampleBatch, kept: NDArray[np.intp], candidates: NDArray[np.intp]) -> UploadPlan:
        """Return the plan for a batch; `candidates` are places in `kept`, the samples that the router wants to send."""
        forms = self._forms_of(batch.modality)
        source_bytes = _source_bytes(batch, kept)
        # Without a limit in bytes, the price only matters if a smaller form may be needed.
        if not self._budget.counts_bytes and (len(forms.names) == 1 or not self._budget.pressure):
            return UploadPlan(forms, forms.names[0], source_bytes, np.zeros(len(candidates)), is_priced=False)
        wanted_bytes = source_bytes[candidates]
        form = self.choose_form(batch.modality, float(wanted_bytes.sum())) if len(candidates) else forms.names[0]
        cost_bytes = self.envelope_bytes + wanted_bytes * self._shares[form]
        return UploadPlan(forms, form, source_bytes, cost_bytes, is_priced=True)

    def choose_form(self, modality: Modality, source_bytes: float) -> str:
        """Return the form for samples of `source_bytes` in all, the smallest one if the budget affords none."""
        forms = self._forms_of(modality)
        for number, form in enumerate(forms.names, start=1):
            if self._budget.affords(source_bytes * self._shares[form], number / len(forms.names)):
                return form
        return forms.names[-1]

    def settle(self, plan: UploadPlan, routing: Routing, packed: Packed) -> None:
        """Correct the budget by the real size of the messages, and learn the share of the plan's form."""
        if not plan.is_priced or not packed.samples:
            return
        self._budget.correct(sum(len(sample.data) for sample in packed.samples) - routing.charged_bytes)
        source = sent = 0.0
        for place, sample in zip(packed.sample_ids, packed.samples, strict=True):
            if routing.codes[place] != AUDIT:  # audits have a form of their own
                source += plan.source_bytes[place]
                sent += len(sample.data) - self.envelope_bytes
        if source > 0:
            self._shares[plan.form] += NEWEST_WEIGHT * (sent / source - self._shares[plan.form])

    def measure_envelope(self, bundle_id: str, measure: Callable[[], int]) -> None:
        """Learn the size of a message without its payload, once for each bundle; `measure` may raise SampleRejected."""
        if bundle_id != self._measured_bundle_id:
            try:
                self.envelope_bytes = measure()
            except SampleRejected:
                return
            self._measured_bundle_id = bundle_id

    def _forms_of(self, modality: Modality) -> PayloadForms:
        if self._forms is None:
            self._forms = forms_for(modality, self._settings)
            self._shares = dict(self._forms.expected_shares)
        return self._forms


def forms_for(modality: Modality, settings: RouterSettings) -> PayloadForms:
    """Return the payload forms of a modality."""
    return ImageForms(settings) if modality is Modality.IMAGE else LosslessOnly()


def _source_bytes(batch: SampleBatch, kept: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the size (kept,) of each sample as its source delivered it: file bytes where there are some."""
    values, encoded = batch.values, batch.encoded
    if encoded is not None:
        return np.array([len(encoded[position]) for position in kept.tolist()], dtype=np.float64)
    if isinstance(values, np.ndarray):
        return np.full(len(kept), values.nbytes // max(len(batch), 1), dtype=np.float64)
    return np.array([values[position].nbytes for position in kept.tolist()], dtype=np.float64)
