"""Markdown page and terminal table of the benchmark of near copies."""

from collections.abc import Mapping
from typing import Any

from cloud.evaluation.page import failed_sets, table
from shared.terminal import new_console, print_table, print_text

_HEADER = (
    "stream",
    "kind",
    "rows",
    "anomalies",
    "sent without",
    "sent with",
    "saved",
    "saved of anomalies",
    "recall without",
    "recall with",
    "incidents without / with / shown",
    "accepted anomalies",
)


def repeats_page(result: Mapping[str, Any]) -> str:
    """Return the Markdown page of a run."""
    lines = [
        "# Near copies that stay on the device",
        "",
        f"Made by `{result['command']}` with Vedette {result['version']}. [The method](../methods/repeats.md).",
        "",
        "A device routes the rows of a stream, eight every 8 s, with the screener of a bundle trained on normal rows. "
        "The analyzers of the same bundle judge the sent rows; verdicts arrive 2 s later. *Recorded*: a server "
        "machine's readings in their order. *Repeated*: normal rows of a table with 8 of its anomalies, each 50 times "
        "in bursts of 10, with noise of a tenth of a deviation.",
        "",
        "* *Saved*: share of the forwarded rows that stay; audits travel in both cases and are left out.",
        "* *Recall*: share of the anomalous rows that the cloud calls anomalous, or counts as copies of a row that it "
        "called so.",
        "* *Incidents*: with a row that is found without the memory, found with it, and sent with it.",
        "* *Accepted anomalies*: found without the memory, and accepted as copies of rows judged normal with it.",
        "",
        f"Required: {result['required']:.0%} saved at equal recall; aim {result['aimed']:.0%}.",
        "",
        table(_HEADER, [_cells(item) for item in result["streams"]]),
    ]
    for kind, medians in result["medians"].items():
        if medians:
            lines += [
                "",
                f"Median of the {kind} streams: {medians['saved_share']:.0%} saved, "
                f"{medians['saved_share_of_anomalies']:.0%} of the anomalous rows; recall "
                f"{medians['recall_without']:.3f} without and {medians['recall_with']:.3f} with the memory.",
            ]
    return "\n\n".join(["\n".join(lines), *failed_sets(result)]) + "\n"


def show_repeats(result: Mapping[str, Any]) -> None:
    """Print the figures of the streams."""
    rows = [_cells(item) for item in result["streams"]]
    console = new_console()
    print_table(console, "Near copies that stay on the device", _HEADER, rows, left=(0, 1))
    for name, reason in result["failed"].items():
        print_text(console, f"Failed: {name}: {reason}")


def _cells(item: Mapping[str, Any]) -> list[str]:
    return [
        item["name"],
        item["kind"],
        f"{item['rows']:,}",
        f"{item['anomalies']:,}",
        f"{item['sent_without']:,}",
        f"{item['sent_with']:,}",
        f"{item['saved_share']:.0%}",
        f"{item['saved_share_of_anomalies']:.0%}",
        f"{item['recall_without']:.3f}",
        f"{item['recall_with']:.3f}",
        f"{item['incidents_without']} / {item['incidents_with']} / {item['incidents_shown']}",
        str(item["accepted_anomalies"]),
    ]
