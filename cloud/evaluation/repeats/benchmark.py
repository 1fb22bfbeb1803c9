"""Uploads of a device with and without its memory of judged samples, and the anomalies that are found either way.

The device's part runs in a process of its own (`edge.rehearsal`): the screener of a trained bundle, the router and the
memory, on the rows of a stream. Verdicts come from the analyzers of the same bundle.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.evaluation.repeats.streams import RECORDED, REPEATED, RecurringStream, streams
from cloud.serving.analysis import Analysis
from cloud.training import TrainingSettings, load_training_data, train_bundle
from cloud.training.progress import StageProgress
from shared.child_process import JsonLinesProcess
from shared.errors import DataError, NoAnswerError, VedetteError
from shared.modality import Modality
from shared.samples import Verdict
from shared.signing_keys import new_signing_key, public_pem

REQUIRED_SAVED, AIMED_SAVED = 0.5, 0.9
FALSE_ALARM_RATE = 0.01
TIMEOUT_S = 1800.0
JUDGED_ROWS = 1024  # at a time
BATCH_SIZE, INTERVAL_S, LATENCY_S = 8, 8.0, 2.0  # one row a second


@dataclass(frozen=True, slots=True)
class RepeatsBenchmarkOptions:
    """Options of a run. `effort` scales the steps of training. `command`: the line that repeats it."""

    data: Path
    datasets: tuple[str, ...]
    effort: float
    command: str


def run_repeats_benchmark(options: RepeatsBenchmarkOptions, progress: StageProgress) -> dict[str, Any]:
    """Return the figures of each stream and their medians as JSON values.

    A stream that cannot be measured is under `failed`. Raises as `streams`, and DataError if every stream failed.
    """
    found: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for stream in streams(options.data, options.datasets):
        try:
            found.append(measure(stream, options.effort, progress))
        except VedetteError as error:
            failed[stream.name] = str(error)
    if not found:
        name, reason = next(iter(failed.items()))
        raise DataError(f"Every stream failed; {name}: {reason}")
    return {
        "benchmark": "repeats",
        "command": options.command,
        "version": version("vedette"),
        "required": REQUIRED_SAVED,
        "aimed": AIMED_SAVED,
        "streams": found,
        "failed": failed,
        "medians": {kind: _medians([item for item in found if item["kind"] == kind]) for kind in (RECORDED, REPEATED)},
    }


def measure(stream: RecurringStream, effort: float, progress: StageProgress) -> dict[str, Any]:
    """Train a bundle, judge all rows, and route them without and with the memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = new_signing_key(folder / "key.pem")
        (folder / "public.pem").write_bytes(public_pem(key.public_key()))
        np.savez(folder / "train.npz", X=stream.train)
        settings = TrainingSettings().changed({"name": "repeats", "effort": effort})
        data = load_training_data(folder / "train.npz", Modality.TABULAR, settings.data)
        bundle = train_bundle(data, settings, key, lambda stage, share: progress(f"{stream.name}: {stage}", share))
        bundle.save(folder / "bundle.vedette")
        p_values = _p_values(Analysis.load(bundle, "cpu"), stream.rows)
        anomalous = p_values <= FALSE_ALARM_RATE
        np.savez(folder / "rows.npz", values=stream.rows, anomalous=anomalous, p_values=p_values)
        request = {
            "bundle": str(folder / "bundle.vedette"),
            "key": str(folder / "public.pem"),
            "rows": str(folder / "rows.npz"),
            "batch_size": BATCH_SIZE,
            "interval_s": INTERVAL_S,
            "latency_s": LATENCY_S,
        }
        sent, held = _rehearse([request | {"repeats": "send"}, request | {"repeats": "hold"}])
    return {"name": stream.name, "kind": stream.kind, **figures(stream, anomalous, sent, held)}


def figures(
    stream: RecurringStream,
    anomalous: NDArray[np.bool_],
    without: dict[str, list[int]],
    with_memory: dict[str, list[int]],
) -> dict[str, Any]:
    """Return the figures of a stream, given the service's decisions (m,) and the routed rows of both runs.

    An anomaly is found if the service called it anomalous, or if it is a copy of a row that the service called so: its
    number reaches the service. Audits are left out of the uploads and of the findings.
    """
    is_anomaly = stream.incidents > 0
    plain, kept = _without_audits(without), _without_audits(with_memory)
    counted = [row for row, of in zip(with_memory["held"], with_memory["copied"], strict=True) if anomalous[of]]
    before, shown = (_mask(rows, len(is_anomaly)) & anomalous & is_anomaly for rows in (plain, kept))
    after = (shown | _mask(counted, len(is_anomaly))) & is_anomaly
    anomalies = [int(is_anomaly[rows].sum()) if rows else 0 for rows in (plain, kept)]
    incidents = [len(set(stream.incidents[found].tolist())) for found in (before, after, shown)]
    return {
        "rows": len(is_anomaly),
        "anomalies": int(is_anomaly.sum()),
        "incidents": int(stream.incidents.max()),
        "sent_without": len(plain),
        "sent_with": len(kept),
        "saved_share": _saved(len(plain), len(kept)),
        "saved_share_of_anomalies": _saved(*anomalies),
        "recall_without": float(before.sum() / max(is_anomaly.sum(), 1)),
        "recall_with": float(after.sum() / max(is_anomaly.sum(), 1)),
        "incidents_without": incidents[0],
        "incidents_with": incidents[1],
        "incidents_shown": incidents[2],
        "accepted_anomalies": int((_mask(with_memory["accepted"], len(is_anomaly)) & before).sum()),
    }


def _saved(without: int, with_memory: int) -> float:
    """Return the share of uploads that the memory saves; 0 where nothing is sent without it."""
    return 1 - with_memory / without if without else 0.0


def _p_values(analysis: Analysis, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the fused p-value (m,) of each row; 1 for a row that cannot be judged."""
    found: list[float] = []
    for start in range(0, len(rows), JUDGED_ROWS):
        verdicts = analysis.judge(list(rows[start : start + JUDGED_ROWS].astype(np.float32)))
        found += [item.p_value if isinstance(item, Verdict) and item.p_value is not None else 1.0 for item in verdicts]
    return np.array(found)


def _rehearse(requests: Sequence[dict[str, Any]]) -> list[dict[str, list[int]]]:
    """Return the answers of one process of the device."""
    command = [sys.executable, "-P", "-m", "edge.rehearsal"]
    with tempfile.TemporaryFile() as log, JsonLinesProcess(command, stderr=log) as process:
        try:
            return [process.ask(request, TIMEOUT_S) for request in requests]
        except NoAnswerError:
            log.seek(0)
            lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
            reason = lines[-1][:300] if lines else "no answer"
            raise VedetteError(f"The rehearsal of the device failed: {reason}") from None


def _without_audits(routed: dict[str, list[int]]) -> list[int]:
    """Return the rows that were sent as suspicious."""
    audits = set(routed["audits"])
    return [row for row in routed["sent"] if row not in audits]


def _mask(rows: Sequence[int], count: int) -> NDArray[np.bool_]:
    found = np.zeros(count, dtype=bool)
    found[list(rows)] = True
    return found


def _medians(streams: Sequence[dict[str, Any]]) -> dict[str, float]:
    names = ("saved_share", "saved_share_of_anomalies", "recall_without", "recall_with")
    return {name: float(np.median([item[name] for item in streams])) for name in names if streams}
