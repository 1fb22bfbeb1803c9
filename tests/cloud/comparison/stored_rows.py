"""Samples in a store as a device sends them, with verdicts and labels."""

import time

from cloud.store.ingest import Received, store_samples
from cloud.store.judging import store_verdicts, waiting_samples
from cloud.store.labels import Label, NewLabel, add_label
from shared.modality import Modality
from shared.samples import Decision, Route, Sample, Screening, Verdict, new_sample_id
from shared.wire import encode_payload


async def send_unjudged(store, bundle_id: str, rows, received_at_s: float) -> list[Received]:
    """Store rows as a device sends them; they wait for their verdicts."""
    received = [
        Received(
            Sample(new_sample_id(), "lab", Modality.TABULAR, time.time(), "row", values),
            Screening(1.0, 0.01, False, Route.FORWARD, bundle_id, "cal", "int8"),
            encode_payload(values, Modality.TABULAR),
        )
        for values in rows
    ]
    await store_samples(store, "lab-1", received, received_at_s)
    return received


async def send(store, bundle_id: str, rows, label: Label | None = None) -> None:
    """Store rows as a device sends them, and verdicts on them."""
    received = await send_unjudged(store, bundle_id, rows, time.time())
    for item in await waiting_samples(store, 100):
        verdict = Verdict(sample_id=item.sample_id, decision=Decision.NORMAL, p_value=0.5, bundle_id=bundle_id)
        await store_verdicts(store, [(item, verdict)])
    if label is not None:
        for item in received:
            await add_label(store, item.sample.sample_id, NewLabel(label, "ada"), "account:ada")
