"""Page and text of the benchmark `vedette bench audit`."""

from collections.abc import Mapping
from typing import Any

from cloud.evaluation.audits.benchmark import AIMED_RATIO, DRAWN, REQUIRED_RATIO, TABLES
from cloud.evaluation.audits.coverage import LOOKS, PATTERNS
from cloud.evaluation.audits.populations import CLOUD_FALSE_ALARMS
from cloud.evaluation.audits.upload import AUDIT_SHARE, CHECKPOINTS, FIRST_P_VALUE, MAX_ORACLE, MIN_ORACLE
from cloud.evaluation.page import table
from shared.terminal import new_console, print_table

_KINDS = {
    TABLES: "ADBench tables, a screener distilled from the cloud's score",
    DRAWN: "drawn populations, a screener that agrees poorly with the cloud",
}
_UPLOAD_HEADER = (
    "audits",
    "limit held at all times",
    "no threshold yet",
    "ratio, median",
    "9 in 10",
    "of all uploads",
    "within 1.5",
    "within 1.2",
    "with audits, median",
)


def audit_page(result: Mapping[str, Any]) -> str:
    """Return the Markdown page of a run."""
    lines = [
        "# Bound on missed anomalies",
        "",
        f"`{result['command']}` simulates {result['runs']:,} deployments. [The method](../methods/miss_bound.md).",
        "",
        "## Coverage",
        f"Share of deployments whose bound is never below the mean miss rate, at any of {result['audits']:,} audits. "
        "Required: 95 %. Miss rates from 0.03 to 3 % are drawn; they are constant, change slowly, or come in bursts. "
        "In the last column 0.5 % of the audits are lost and count as anomalous.",
        "",
        table(("bound", *PATTERNS), _coverage_rows(result)),
        "",
        "## Width",
        "Median ratio to the bound of Clopper and Pearson, which holds for one look only.",
        "",
        table(("bound", *(f"{look:,} audits" for look in LOOKS)), _width_rows(result)),
        "",
        "## Upload that `max_miss_rate` asks for",
        f"Each deployment has a limit, {100 * AUDIT_SHARE:g} % audits, and forwards p-values up to {FIRST_P_VALUE:g} "
        "until its audits suffice. The oracle knows the least threshold that holds the limit. Only limits are "
        f"simulated for which the oracle forwards {100 * MIN_ORACLE:g} to {100 * MAX_ORACLE:g} % of the samples. The "
        f"miss rate at a threshold is constant. The cloud calls {100 * CLOUD_FALSE_ALARMS:g} % of normal samples "
        "anomalous. *Limit held at all times* is a share of the deployments that have had a threshold; 95 % are "
        "promised among all. Ratios are those of forwarded samples, among deployments with a threshold; the last "
        f"column counts audits, too. Required: {REQUIRED_RATIO:g} times the upload of the oracle in the median; aim "
        f"{AIMED_RATIO:g}.",
    ]
    for kind, of_kind in result["upload"].items():
        lines += _upload_lines(kind, of_kind, result["requirements"])
    return "\n".join([*lines, ""])


def _upload_lines(kind: str, of_kind: Mapping[str, Any], requirements: Mapping[str, Any]) -> list[str]:
    limits = ", ".join(f"{100 * limit:g}" for limit in of_kind["limits"])
    reached = [_reached(ratio, requirements[f"{kind}_audits_for_{ratio}"]) for ratio in (REQUIRED_RATIO, AIMED_RATIO)]
    return [
        "",
        f"**{_KINDS[kind][0].upper()}{_KINDS[kind][1:]}** ({of_kind['populations']}; the oracle forwards "
        f"{100 * of_kind['oracle_median']:.1f} % in the median; limits of {limits} %). {' '.join(reached)}",
        "",
        table(_UPLOAD_HEADER, [_upload_cells(*item) for item in of_kind["by_audits"].items()]),
    ]


def _coverage_rows(result: Mapping[str, Any]) -> list[list[str]]:
    return [[name, *(f"{100 * row[each]:.1f} %" for each in PATTERNS)] for name, row in result["coverage"].items()]


def _width_rows(result: Mapping[str, Any]) -> list[list[str]]:
    return [[name, *(_ratio(row.get(str(look))) for look in LOOKS)] for name, row in result["width"].items()]


def _upload_cells(audits: str, found: Mapping[str, Any]) -> list[str]:
    ratios = ("upload_ratio_median", "upload_ratio_p90", "upload_ratio_of_totals")
    return [
        f"{int(audits):,}",
        _percent(found["holds_at_all_times"]),
        f"{100 * found['without_a_threshold']:.0f} %",
        *(_ratio(found[name]) for name in ratios),
        *(f"{100 * found[name]:.0f} %" for name in ("within_1_5", "within_1_2")),
        _ratio(found["upload_ratio_with_audits_median"]),
    ]


def _reached(ratio: float, audits: int | None) -> str:
    """Return from how many audits on the median ratio is met, in a sentence."""
    if audits is None:
        return f"A ratio of {ratio:g} is not met with {max(CHECKPOINTS):,} audits."
    return f"A ratio of {ratio:g} is met from {audits:,} audits on, and not before."


def show_audits(result: Mapping[str, Any]) -> None:
    """Print the coverage and the upload of a run."""
    console = new_console()
    title = "Deployments whose bound holds at all times"
    print_table(console, title, ("bound", *PATTERNS), _coverage_rows(result))
    header = ("audits", "limit held", "no threshold yet", "upload / oracle", "9 in 10")
    for kind, of_kind in result["upload"].items():
        rows = [_upload_cells(*item)[: len(header)] for item in of_kind["by_audits"].items()]
        print_table(console, _KINDS[kind], header, rows, left=())


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
