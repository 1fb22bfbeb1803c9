"""Result tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from cloud.evaluation.leaderboard import routing_names
from cloud.evaluation.page import display_name, methods_of, per_cent
from shared.terminal import new_console, print_table, print_text

_LABELLED = (
    "vus_pr",
    "auroc",
    "auprc",
    "recall_at_1_far",
    "recall_at_5_far",
    "false_alarms_at_1",
    "false_alarms_at_5",
    "f1",
    "affiliation_f1",
    "pixel_auroc",
    "pro",
)
_UNLABELLED = ("score_q50", "score_q99", "score_q100", "p_median", "p_lowest", "flagged_at_1", "flagged_at_5")
_ROUTINGS = ("upload_share", "vus_pr", "auroc", "auprc", "recall_at_5_far", "recall_kept_at_5_far")
_NOT_SHARES = ("score_", "p_")
_HEADERS = {
    "recall_at_1_far": "recall @1%",
    "recall_at_5_far": "recall @5%",
    "recall_kept_at_5_far": "kept @5%",
    "false_alarms_at_1": "alarms @1%",
    "false_alarms_at_5": "alarms @5%",
    "affiliation_f1": "affil. F1",
    "pixel_auroc": "pixels",
    "score_q50": "score",
    "score_q99": "99 %",
    "score_q100": "highest",
    "p_median": "p",
    "p_lowest": "lowest p",
    "flagged_at_1": "flagged @1%",
    "flagged_at_5": "flagged @5%",
}
_LEGEND = (
    "In per cent. recall @5%: anomalies found when 5 % of the normal samples are flagged; alarms @5%: normal samples "
    "flagged at p <= 0.05; kept @5%: recall @5% as a share of the recall of cloud_only."
)


def show_evaluation(result: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the result of an evaluation: its key figures, its tables, and at the end its findings."""
    console = console if console is not None else new_console()
    labelled = result["anomalies"] is not None
    counts = f"{result['anomalies']} of them anomalous" if labelled else "without both normal and anomalous labels"
    print_text(console, f"{result['bundle']} on {result['data']}: {result['samples']} samples, {counts}.")
    if result["rejected"]:
        print_text(console, f"{result['rejected']} samples were rejected: {'; '.join(result['rejections'])}")
    for sentence in result.get("key_figures", ()):
        print_text(console, f"- {sentence}")
    for note in result["notes"]:
        print_text(console, f"Note: {note}.")
    _print(console, "Methods", "method", result["methods"], _LABELLED if labelled else _UNLABELLED)
    if result["leaderboard"]:
        title = f"Router leaderboard (edge: {result['edge']})"
        _print(console, title, "routing", result["leaderboard"], _ROUTINGS)
    if labelled:
        print_text(console, _LEGEND, style="dim")
    if result.get("plots"):
        print_text(console, f"Plots: {', '.join(result['plots'])}.")
    for sentence in result.get("findings", ()):
        print_text(console, sentence, style="yellow")


def show_benchmark(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the means of a benchmark, published means, and the failed sets."""
    console = console if console is not None else new_console()
    means, headline = summary["mean"], summary["headline"]
    sets = list(summary["sets"])
    print_text(console, f"{summary['benchmark']}: means over {len(sets)} sets, {len(summary['seeds'])} seeds.")
    _print(console, "Methods", "method", {name: means[name] for name in methods_of(means)}, _LABELLED)
    board = {name: means[name] for name in routing_names() if name in means}
    if board:
        _print(console, "Router leaderboard", "routing", board, _ROUTINGS)
    print_text(console, _LEGEND, style="dim")
    published = summary["published"]
    if published is not None:
        best = sorted(published["mean"].items(), key=lambda item: -item[1])[:6]
        text = ", ".join(f"{name} {per_cent(value)}" for name, value in best)
        covered = f"{len(published['sets'])} of these sets" if published["sets"] else "other sets of this kind"
        print_text(console, f"Published {display_name(headline)}, means over {covered}: {text}.")
    for name, reason in summary["failed"].items():
        print_text(console, f"Failed: {name}: {reason}")


def _print(
    console: Console, title: str, row_header: str, rows: Mapping[str, Mapping[str, float]], figures: Sequence[str]
) -> None:
    columns = [name for name in figures if any(name in row for row in rows.values())]
    header = [row_header, *(_HEADERS.get(column, display_name(column)) for column in columns)]
    cells = [[name, *(_cell(column, row.get(column)) for column in columns)] for name, row in rows.items()]
    print_table(console, title, header, cells)


def _cell(figure: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if figure.startswith(_NOT_SHARES) else per_cent(value)
