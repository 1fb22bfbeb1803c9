"""Routing of recorded rows with verdicts that are known in advance: `python -m edge.rehearsal`.

Answers JSON lines. A request has the fields of `Rehearsal`; the answer has positions of rows:

* `suspicious`: p-values of at most `forward_p_value`
* `sent`: sent to the service
* `held`: suspicious copies that stayed, and `copied`: the sent row that each is a copy of
* `accepted`: copies of samples judged normal that stayed
* `audits`: sent as audits
"""

import tempfile
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge.routing.budget import UploadBudget
from edge.routing.forwarding import Forwarder
from edge.routing.repeats.filter import Marked, RepeatFilter
from edge.routing.router import AUDIT, RateMeter, Router
from edge.screener import ScreenedBatch, Screener, load_screener
from edge.settings import RouterSettings
from shared.bundle import Bundle
from shared.child_process import serve_json_lines
from shared.samples import Decision, SampleBatch, Verdict
from shared.signing_keys import load_trusted_key

SOURCE = "rehearsal"


@dataclass(frozen=True)
class Rehearsal:
    """Stream of one source.

    `rows`: NPZ file with `values` (n, features), and the service's `anomalous` (n,) and `p_values` (n,). A batch of
    `batch_size` rows comes every `interval_s` seconds, and verdicts `latency_s` after their sample. `bundle` is signed
    by `key`, a PEM file.
    """

    bundle: str
    key: str
    rows: str
    repeats: Literal["hold", "send"]
    batch_size: int
    interval_s: float
    latency_s: float


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class _Recorded(RepeatFilter):
    """Filter that keeps the marks of the last batch."""

    marked: Marked | None = None

    def mark(self, screened: ScreenedBatch, screener: Screener, forward_p_value: float) -> Marked | None:
        self.marked = super().mark(screened, screener, forward_p_value)
        return self.marked


def rehearse(wanted: Rehearsal, folder: Path) -> dict[str, list[int]]:
    """Route all rows and return the positions of the answer."""
    bundle = Bundle.open(Path(wanted.bundle), [load_trusted_key(Path(wanted.key))])
    screener = load_screener(bundle, bundle.manifest.preferred_artefact, wanted.batch_size, folder)
    with np.load(wanted.rows, allow_pickle=False) as file:
        values, anomalous, p_values = file["values"].astype(np.float32), file["anomalous"], file["p_values"]
    settings, clock = RouterSettings(repeats=wanted.repeats), _Clock()
    repeats = _Recorded(SOURCE, folder / "repeats.npz", settings, clock=clock)
    budget = UploadBudget(settings, clock)
    router = Router(settings, SOURCE, RateMeter(wanted.batch_size / wanted.interval_s, clock), budget)
    forwarder = Forwarder(router, settings, budget, lambda _: None, repeats=repeats)
    found: dict[str, list[int]] = {name: [] for name in ("suspicious", "sent", "held", "copied", "accepted", "audits")}
    due: deque[tuple[float, list[Verdict]]] = deque()
    rows_by_id: dict[bytes, int] = {}
    for start, batch in _batches(values, wanted.batch_size, screener):
        clock.now_s += wanted.interval_s
        while due and due[0][0] <= clock.now_s:
            repeats.learn(due.popleft()[1])
        screened = screener.screen(batch)
        forwarded = forwarder.forward(batch, screened, screener)
        rows = start + screened.kept
        suspicious = screened.p_values <= settings.forward_p_value
        sent = np.zeros(len(rows), dtype=bool)
        sent[list(forwarded.sample_ids)] = True
        for name, places in (
            ("suspicious", suspicious),
            ("sent", sent),
            ("held", suspicious & ~sent & ~forwarded.accepted),
            ("accepted", suspicious & ~sent & forwarded.accepted),
            ("audits", sent & (forwarded.codes == AUDIT)),
        ):
            found[name] += rows[places].tolist()
        rows_by_id |= {sample_id.bytes: int(rows[place]) for place, sample_id in forwarded.sample_ids.items()}
        found["copied"] += _copied(repeats.marked, suspicious & ~sent & ~forwarded.accepted, rows_by_id)
        verdicts = [
            _verdict(sample_id, bool(anomalous[rows[place]]), float(p_values[rows[place]]))
            for place, sample_id in forwarded.sample_ids.items()
        ]
        due.append((clock.now_s + wanted.latency_s, verdicts))
    return found


def _batches(values: NDArray[np.float32], batch_size: int, screener: Screener) -> Iterator[tuple[int, SampleBatch]]:
    for start in range(0, len(values), batch_size):
        part = values[start : start + batch_size]
        origins = [str(start + number) for number in range(len(part))]
        yield start, SampleBatch(SOURCE, screener.modality, part, np.zeros(len(part)), origins)


def _copied(marked: Marked | None, held: NDArray[np.bool_], rows_by_id: dict[bytes, int]) -> list[int]:
    """Return the row that each held one is a copy of."""
    if marked is None:
        return []
    of = zip(marked.places.tolist(), marked.prototypes, strict=True)
    return [rows_by_id[item.sample_id] for place, item in of if held[place] and item is not None]


def _verdict(sample_id: uuid.UUID, anomalous: bool, p_value: float) -> Verdict:
    return Verdict(sample_id, Decision.ANOMALOUS if anomalous else Decision.NORMAL, p_value)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return dict(rehearse(Rehearsal(**request), Path(folder)))


if __name__ == "__main__":
    serve_json_lines(_answer)
