"""Markdown page and terminal table of the drift benchmark."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from cloud.evaluation.drift.benchmark import MIN_NORMALS, OFF, SEEN, UNSEEN
from cloud.evaluation.drift.replay import CREEP_SAMPLES, CREEP_SURPRISE, LABELS, VERDICTS
from cloud.evaluation.drift.stream_scores import EDGE
from cloud.evaluation.page import failed_sets, table
from shared.terminal import new_console, print_table, print_text

_HEADER = ["method", "calibration", "mean", "worst", "mean, large", "worst, large", "recall lost", "creeping fault"]
_TRAINED = "A screener is trained once for each stream:"
_QUICK = "A quick run trains no screener. kNN and Isolation Forest are fitted once for each stream:"
_STREAMS = (
    " on the first half of a table's normal rows in file order, on the training part of a machine, on a normal run of "
    "a plant. The rest of the data in its order, with its anomalies in place, is the stream. An alarm is a p-value of "
    "at most 1 %, the promise."
)
_CALIBRATIONS = (
    "* **off**: the calibration of training.\n"
    "* **unanswered**: the calibration adapts, and nobody answers for a suspicious sample.\n"
    f"* **answered**: {100 * LABELS.share:g} % of the suspicious samples, drawn at random, get their label "
    f"{LABELS.delay} samples later."
)
_CASCADE = (
    f"\n* **cascade**: the device adapts by the cloud's verdicts alone, {VERDICTS.delay} sample later; the cloud's "
    "p-values are those of `fused`, answered."
)
_COLUMNS = (
    "Columns: realised false alarms over the promise, as mean and worst over the streams, and over the large ones with "
    f"{MIN_NORMALS} normals or more, because fewer cannot show a rate of 1 %. `recall lost`, in points: recall of the "
    "oracle minus recall here. The oracle is the one threshold with 1 % false alarms on the whole stream. `creeping "
    f"fault`: the normals of a stream creep up by {CREEP_SURPRISE:g} nats over {CREEP_SAMPLES:,} samples; least share "
    "of alarms among the last tenth, over the streams.\n\n"
    "The tables were looked at while the method was developed, so their figures are not an independent test. The "
    "machines and the plant were not: nothing was tuned on them."
)
_TITLES = {SEEN: "Tables (ADBench), seen in development", UNSEEN: "Machines (SMD) and plant (TEP), not seen before"}


def drift_page(summary: Mapping[str, Any]) -> str:
    """Return the page of a run from its JSON values."""
    made = f"Made by `{summary['command']}` with Vedette {summary['version']}: {len(summary['streams'])} streams."
    is_trained = EDGE in next(iter(summary["streams"].values()))["methods"]
    parts = [
        "# False alarms under drift",
        (_TRAINED if is_trained else _QUICK) + _STREAMS,
        _CALIBRATIONS + (_CASCADE if is_trained else ""),
        _COLUMNS,
        made,
    ]
    for name, figures in summary["means"].items():
        if figures:
            parts += [f"## {_TITLES[name]}"]
            parts += [table(_HEADER, _rows(figures))]
    parts += ["## Stream by stream", "Realised false alarms over the promise.", _by_stream(summary["streams"])]
    parts += failed_sets(summary)
    return "\n\n".join(parts) + "\n"


def show_drift(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the means of the streams that were seen in development and of the others, and the failed streams."""
    console = console if console is not None else new_console()
    for name, figures in summary["means"].items():
        if figures:
            print_table(console, _TITLES[name], _HEADER, _rows(figures), left=(0, 1))
    for name, reason in summary["failed"].items():
        print_text(console, f"Failed: {name}: {reason}")


def _rows(figures: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            f"`{method}`",
            way,
            *(_ratio(row[key]) for key in ("false_alarms", "worst", "measurable", "worst_measurable")),
            "" if row["recall_lost"] is None else f"{100 * row['recall_lost']:.1f}",
            "" if row["creeping_fault"] is None else f"{100 * row['creeping_fault']:.0f} %",
        ]
        for method, ways in figures.items()
        for way, row in ways.items()
    ]


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _by_stream(streams: Mapping[str, Any]) -> str:
    first = next(iter(streams.values()))["methods"]
    shown = [(method, way) for method, ways in first.items() for way in ways if way in (OFF, list(ways)[-1])]
    header = ["stream", "normals", "anomalies", *(f"`{method}`, {way}" for method, way in shown)]
    rows = [
        [
            name,
            f"{item['samples'] - item['anomalies']}",
            f"{item['anomalies']}",
            *(f"{item['methods'][method][way]['false_alarms']:.2f}" for method, way in shown),
        ]
        for name, item in streams.items()
    ]
    return table(header, rows)
