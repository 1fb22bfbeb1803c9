"""Page and terminal table of the benchmark of labels."""

from collections.abc import Mapping
from typing import Any

from cloud.evaluation.labels import BASELINES, DEVELOPED_ON, LABELS, RATE, RECALLS, ratios
from cloud.evaluation.page import failed_sets, table
from shared.terminal import new_console, print_table, print_text

_RECALL_WORDS = {"equal": "as without labels", "half": "50 %", "four_fifths": "80 %"}


def with_ratios(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the summary with ratios of false alarms, over the sets that no choice was made on and over all."""
    sets = summary["sets"]
    reported = {name: figures for name, figures in sets.items() if name not in DEVELOPED_ON}
    return summary | {
        "reported_sets": list(reported),
        "ratios_reported": ratios(reported) if reported else {},
        "ratios_all": ratios(sets),
    }


def page(summary: Mapping[str, Any]) -> str:
    """Return the page of a run as Markdown."""
    lines = [
        "# Labels: false alarms at equal recall",
        "A stream follows the normal training data of a set. Its first half is judged; the samples with the highest "
        "fused scores, which the system would ask about, are labelled, and the analysis is fitted again with these "
        "labels as `vedette retrain` fits it. In the second half false alarms are counted at the recall that the "
        f"system has without labels at its promised rate of {RATE:.0%}, and at recalls of 50 and 80 %. Tables: one "
        "anomaly for each 19 normal rows in the first half; the normal rows in file order, the first half to train "
        "on. Series: windows of 32 readings.",
        f"Choices were made on {', '.join(DEVELOPED_ON)}. {_ratios_over(summary)}",
        f"Made by `{summary['command']}`, Vedette {summary['version']}, effort {summary['settings']['effort']:g}, "
        f"seeds {', '.join(map(str, summary['seeds']))}.",
        "## False alarms with labels over those without",
        "`total` is the ratio of the sums over the sets, `median` the median of the sets' ratios. Required: 0.5 with "
        "20 labels; aim: 0.2.",
        table(*_ratio_table(summary["ratios_reported"] or summary["ratios_all"])),
        "## Set by set",
        "Share of the normal samples that are raised, in per cent, without labels and with 10, 20 and 50, at the "
        "recall without labels and at a recall of 80 %; then kNN and Isolation Forest at a recall of 80 %; then the "
        "share raised at the promised rate, and the recall there, without labels and with 20.",
        table(*_set_table(summary["sets"])),
        *failed_sets(summary),
    ]
    return "\n\n".join(lines) + "\n"


def show(summary: Mapping[str, Any]) -> None:
    """Print the ratios and the sets."""
    console = new_console()
    print_text(console, f"False alarms with labels over those without. {_ratios_over(summary)}")
    header, rows = _ratio_table(summary["ratios_reported"] or summary["ratios_all"])
    print_table(console, "Ratios", header, rows)
    header, rows = _set_table(summary["sets"])
    print_table(console, "Sets", header, rows)
    for name, reason in summary["failed"].items():
        print_text(console, f"Failed: {name}: {reason}")


def _ratios_over(summary: Mapping[str, Any]) -> str:
    """Return a sentence that names the sets of the ratios."""
    if reported := summary["reported_sets"]:
        return f"The ratios are over the {len(reported)} sets that no choice was made on: {', '.join(reported)}."
    return f"The ratios are over sets that choices were made on, so they are no test: {', '.join(summary['sets'])}."


def _ratio_table(found: Mapping[str, Mapping[str, float | None]]) -> tuple[list[str], list[list[str]]]:
    keys = [f"false_alarms_{name}_{kind}" for name in ("equal", *RECALLS) for kind in ("total", "median")]
    header = ["labels", *(f"{words}, {kind}" for words in _RECALL_WORDS.values() for kind in ("total", "median"))]
    rows = []
    for name, row in found.items():
        cells = ("" if (ratio := row[key]) is None else f"{ratio:.2f}" for key in keys)
        rows.append([name.removeprefix("labels_"), *cells])
    return header, rows


def _set_table(sets: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    header = ["set", *(f"{count}" for count in LABELS), *(f"{count} at 80 %" for count in LABELS), *BASELINES]
    header += ["rate, 0", "rate, 20", "recall, 0", "recall, 20"]
    rows = []
    for name, figures in sets.items():
        cells = [figures[f"labels_{n}"][f"false_alarms_{at}"] for at in ("equal", "four_fifths") for n in LABELS]
        cells += [figures[baseline]["false_alarms_four_fifths"] for baseline in BASELINES]
        cells += [figures[f"labels_{n}"][key] for key in ("realised_rate", "recall") for n in (0, 20)]
        rows.append([name, *(f"{100 * cell:.1f}" for cell in cells)])
    return header, rows
