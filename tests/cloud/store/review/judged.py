"""Judged samples for tests of review items."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from cloud.store import Store
from cloud.store.ingest import Received, store_samples
from cloud.store.judging import store_verdicts, waiting_samples
from shared.modality import Modality
from shared.samples import Decision, Route, Sample, Screening, Verdict, new_sample_id
from shared.wire import encode_payload

START_S = float(int(time.time()) - 7200)


@dataclass(frozen=True)
class Judged:
    """One verdict to store; times after START_S. `place`: cell of an 8 x 8 anomaly map with the largest value."""

    at_s: float = 0.0
    device_id: str = "one"
    source_id: str = "lab"
    decision: Decision = Decision.ANOMALOUS
    route: Route = Route.FORWARD
    p_value: float | None = 0.004
    modality: Modality = Modality.TABULAR
    place: tuple[int, int] | None = None
    judged_at_s: float | None = None
    received_s: float | None = None
    origin: str = "row"
    contributions: tuple[tuple[str, float], ...] = ()
    bundle_id: str = "b"


async def judge(store: Store, *wanted: Judged) -> list[int]:
    """Store samples with their verdicts, in this order; their numbers."""
    numbers = []
    for item in wanted:
        values: Any = np.arange(3, dtype=np.float32)
        if item.modality is Modality.IMAGE:
            values = np.zeros((8, 8, 3), np.uint8)
        sample_id, at_s = new_sample_id(), START_S + item.at_s
        sample = Sample(sample_id, item.source_id, item.modality, at_s, item.origin, values)
        screening = Screening(1.0, 0.01, False, item.route, "biopsy-1-00000000", "cal", "int8")
        received = Received(sample, screening, encode_payload(values, item.modality))
        received_s = item.at_s + 1 if item.received_s is None else item.received_s
        await store_samples(store, item.device_id, [received], START_S + received_s)
        (waiting,) = [found for found in await waiting_samples(store, 1000) if found.sample_id == sample_id]
        anomaly_map = None
        if item.place is not None:
            anomaly_map = np.zeros((8, 8), np.uint8)
            anomaly_map[item.place] = 255
        judged_at_s = at_s + 2 if item.judged_at_s is None else START_S + item.judged_at_s
        verdict = Verdict(
            sample_id,
            item.decision,
            item.p_value,
            judged_at_s=judged_at_s,
            anomaly_map=anomaly_map,
            bundle_id=item.bundle_id,
            contributions=item.contributions,
        )
        await store_verdicts(store, [(waiting, verdict)])
        numbers.append(waiting.number)
    return numbers
