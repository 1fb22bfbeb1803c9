"""Markdown page of benchmark results, with published figures and the command that repeats the run."""

from collections.abc import Mapping, Sequence
from typing import Any

from cloud.evaluation.bench import LARGE_SETS
from cloud.evaluation.leaderboard import routing_names
from cloud.evaluation.published import BEST
from shared.bundle import GRAPH_FILES

TITLES = {"adbench": "Tables: ADBench", "series": "Series", "images": "Images", "video": "Video"}
_INTRODUCTIONS = {
    "adbench": (
        "The published protocol of DTE: sets of fewer than 1000 rows are bootstrapped to 1000, sets of more than "
        "50,000 are sampled down to 50,000. The first half of the normal rows in file order is the training data; the "
        "rest and all anomalies are judged. Features are standardised on the training half. The bootstrap puts copies "
        "of one row on both sides; small sets are therefore also judged without it."
    ),
    "series": (
        "`train` counts as normal, `test` is judged. Windows are scored at every time point; a point's score is the "
        "mean over the windows that hold it. VUS-PR as in TSB-AD with slopes up to 500 points; F1 and affiliation F1 "
        "each at its best threshold. A router sends windows."
    ),
    "images": "Trained on the good training images; image AUROC, and pixel AUROC and PRO where there are masks.",
    "video": "Frame AUROC over the labelled frames.",
}
_PUBLISHED_IN_MEANS = ("DTE-NP", "KNN", "DTE-C", "ICL", "DTE-IG", "DDPM", "LOF", "IForest", BEST)
_PUBLISHED_PER_SET = ("DTE-NP", "KNN", "DTE-C", BEST)
_EDGE = ("screener_fp32", *(f"screener_{name}" for name in GRAPH_FILES if name.startswith("int8")))
_FIGURES = (
    "vus_pr",
    "auroc",
    "auprc",
    "recall_at_1_far",
    "recall_at_5_far",
    "f1",
    "affiliation_f1",
    "pixel_auroc",
    "pro",
)
_DISPLAY_NAMES = {
    "vus_pr": "VUS-PR",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "recall_at_1_far": "recall at 1 % false alarms",
    "recall_at_5_far": "recall at 5 % false alarms",
    "recall_kept_at_1_far": "kept of cloud-only at 1 %",
    "recall_kept_at_5_far": "kept of cloud-only at 5 %",
    "upload_share": "uploaded",
    "f1": "best F1",
    "affiliation_f1": "affiliation F1",
    "pixel_auroc": "pixel AUROC",
    "pro": "PRO",
    "false_alarms_at_1": "realised at 1 %",
    "false_alarms_at_5": "realised at 5 %",
}


def page(summary: Mapping[str, Any]) -> str:
    """Return the page of a benchmark run from its JSON values."""
    sections = [
        f"# {TITLES[summary['benchmark']]}",
        _INTRODUCTIONS[summary["benchmark"]],
        _provenance(summary),
        "## Means over the sets",
        "All figures in per cent.",
        _means(summary),
        *_routers(summary["mean"]),
        *_alarms(summary["mean"]),
        *_large_sets(summary),
        *_without_bootstrap(summary),
        "## Set by set",
        _sets(summary),
        *failed_sets(summary),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def display_name(figure: str) -> str:
    """Return the display name of a figure."""
    return _DISPLAY_NAMES.get(figure, figure.replace("_", " "))


def methods_of(figures: Mapping[str, Any]) -> list[str]:
    """Return the names of the methods, without the routings."""
    return [name for name in figures if name not in routing_names()]


def failed_sets(summary: Mapping[str, Any]) -> list[str]:
    """Return the heading and the list of the failed sets; empty if there are none."""
    if not summary["failed"]:
        return []
    lines = [f"- {name}: {reason}" for name, reason in summary["failed"].items()]
    return ["## Failed sets, left out of all figures", "\n".join(lines)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with the first column aligned left and all others aligned right."""
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def per_cent(value: float | None) -> str:
    """Return a figure in [0, 1] as per cent with two decimals; empty for None."""
    return "" if value is None else f"{100 * value:.2f}"


def _provenance(summary: Mapping[str, Any]) -> str:
    count = len(summary["sets"])
    seeds = f"seed{'s' if len(summary['seeds']) > 1 else ''} {', '.join(map(str, summary['seeds']))}"
    return (
        f"Made by `{summary['command']}` with Vedette {summary['version']}: {count} set{'s' if count != 1 else ''}, "
        f"{seeds}. `fused` is the cloud's verdict; `baseline_knn` and `baseline_isolation_forest` are fitted on all "
        "normal samples, standardised, and nothing else."
    )


def _means(summary: Mapping[str, Any]) -> str:
    means, headline = summary["mean"], summary["headline"]
    methods = methods_of(means)
    columns = [figure for figure in _FIGURES if any(figure in means[method] for method in methods)]
    rows = [[f"`{method}`", *(per_cent(means[method].get(figure)) for figure in columns)] for method in methods]
    published = summary["published"]
    if published is not None and published["figure"] == headline:
        wanted = [name for name in _PUBLISHED_IN_MEANS if name in published["mean"]]
        wanted = wanted if published["sets"] else _best_published(published["mean"])
        known = {headline: published["mean"], "auprc": published["mean_auprc"]}
        rows += [
            [f"published: {name}", *(per_cent(known.get(figure, {}).get(name)) for figure in columns)]
            for name in wanted
        ]
    text = table(["method", *map(display_name, columns)], rows)
    return text if published is None else f"{text}\n\nPublished figures: {_citation(summary)}"


def _citation(summary: Mapping[str, Any]) -> str:
    published = summary["published"]
    covered = [name for name in summary["sets"] if name in published["sets"]]
    if published["note"]:
        return f"{published['source']}. {published['note']}"
    if len(covered) == len(summary["sets"]):
        return f"{published['source']}; means over the same sets."
    fused = [summary["sets"][name]["fused"][summary["headline"]] for name in covered]
    ours = f"`fused` has {per_cent(sum(fused) / len(fused))} there" if fused else "none is among ours"
    return f"{published['source']}; means over the {len(covered)} of our sets that it has ({ours})."


def _best_published(means: Mapping[str, float]) -> list[str]:
    return sorted(means, key=lambda name: -means[name])[:8]


def _routers(means: Mapping[str, Mapping[str, float]]) -> list[str]:
    board = [name for name in routing_names() if name in means]
    if not board:
        return []
    figures = ("upload_share", "vus_pr", "auroc", "auprc", "recall_at_1_far", "recall_kept_at_1_far")
    columns = [
        figure
        for figure in (*figures, "recall_at_5_far", "recall_kept_at_5_far")
        if any(figure in means[name] for name in board)
    ]
    rows = [[f"`{name}`", *(per_cent(means[name].get(figure)) for figure in columns)] for name in board]
    about = (
        "A forwarded sample gets the cloud's p-value; every other sample keeps the edge's. The cascade forwards the "
        "lowest p-values of the screener that the device prefers. Samples that stay count as no more suspicious than "
        "the last forwarded ones in the cloud's judgement. The oracle knows the labels."
    )
    return ["## Router leaderboard", about, table(["routing", *map(display_name, columns)], rows)]


def _alarms(means: Mapping[str, Mapping[str, float]]) -> list[str]:
    shown = [name for name in methods_of(means) if "false_alarms_at_1" in means[name]]
    if not shown:
        return []
    columns = ("false_alarms_at_1", "recall_at_p_1", "false_alarms_at_5", "recall_at_p_5")
    head = ["method", "realised at 1 %", "recall there", "realised at 5 %", "recall there"]
    rows = [[f"`{name}`", *(per_cent(means[name].get(figure)) for figure in columns)] for name in shown]
    about = "The share of normal test samples that calibrated p-values flag, beside the requested rate."
    return ["## False alarms", about, table(head, rows)]


def _large_sets(summary: Mapping[str, Any]) -> list[str]:
    large = summary.get(LARGE_SETS)
    if not large or not large["names"] or len(large["names"]) == len(summary["sets"]):
        return []
    about = f"{len(large['names'])} sets: {', '.join(large['names'])}."
    return [
        "## Sets of 1000 rows and more, which no bootstrap touches",
        about,
        _short_means(summary, large["names"], large["mean"]),
    ]


def _without_bootstrap(summary: Mapping[str, Any]) -> list[str]:
    variant = summary.get("without_bootstrap")
    small = (
        [name for name in (variant or {"sets": {}})["sets"] if name not in summary[LARGE_SETS]["names"]]
        if variant
        else []
    )
    if variant is None or not (small or variant["failed"]):
        return []
    headline = summary["headline"]
    methods = [*_edge(summary), "fused", "baseline_knn"]
    rows = []
    for name in small:
        pairs = [(summary["sets"].get(name, {}), variant["sets"][name])] * len(methods)
        cells = [
            (per_cent(with_bootstrap.get(method, {}).get(headline)), per_cent(without.get(method, {}).get(headline)))
            for (with_bootstrap, without), method in zip(pairs, methods, strict=True)
        ]
        rows.append([name, *(cell for pair in cells for cell in pair)])
    head = ["set", *(text for name in methods for text in (f"`{name}`, bootstrapped", "not bootstrapped"))]
    failed = [
        f"{name} could not be judged without the bootstrap: {reason}" for name, reason in variant["failed"].items()
    ]
    about = (
        "Sets of fewer than 1000 rows under the published protocol and without the bootstrap, with the same split: "
        "copies of training rows in the test part flatter every method that remembers. Means over all sets without "
        "bootstrap: "
        + ", ".join(
            f"`{name}` {per_cent(variant['mean'][name][headline])}" for name in methods if name in variant["mean"]
        )
        + "."
    )
    return ["## Without the bootstrap", about, table(head, rows) if rows else "", *failed]


def _short_means(summary: Mapping[str, Any], names: Sequence[str], means: Mapping[str, Mapping[str, float]]) -> str:
    headline = summary["headline"]
    rows = [[f"`{method}`", per_cent(means[method].get(headline))] for method in methods_of(means)]
    published = summary["published"]
    covered = [name for name in names if published is not None and name in published["sets"]]
    if published is not None and covered and len(covered) == len(names):
        for method in _PUBLISHED_IN_MEANS:
            values = [published["sets"][name][method] for name in covered if method in published["sets"][name]]
            if len(values) == len(covered):
                rows.append([f"published: {method}", per_cent(sum(values) / len(values))])
    return table(["method", display_name(headline)], rows)


def _sets(summary: Mapping[str, Any]) -> str:
    """Return the headline figure of the main methods by set, with published figures; the JSON has all others."""
    headline, published = summary["headline"], summary["published"]
    methods = [name for name in (*_EDGE, "fused", "cascade_10", "baseline_knn") if name in summary["mean"]]
    published_methods = [
        name
        for name in _PUBLISHED_PER_SET
        if published is not None and any(name in figures for figures in published["sets"].values())
    ]
    rows = []
    for name, figures in summary["sets"].items():
        facts = summary["facts"].get(name, {})
        known = published["sets"].get(name, {}) if published is not None else {}
        ours = [per_cent(figures.get(method, {}).get(headline)) for method in methods]
        best = max((method for method in methods_of(figures)), key=lambda method: figures[method].get(headline, 0.0))
        counts = [str(facts.get(key, "")) for key in ("normal_samples", "test_samples", "anomalies")]
        rows.append(
            [
                name,
                *counts,
                *(per_cent(known.get(name)) for name in published_methods),
                *ours,
                f"`{best}` {per_cent(figures[best][headline])}",
            ]
        )
    head = [
        "set",
        "train",
        "test",
        "anomalies",
        *(f"published: {name}" for name in published_methods),
        *(f"`{name}`" for name in methods),
    ]
    return f"{display_name(headline)}.\n\n{table([*head, 'our best'], rows)}"


def _edge(summary: Mapping[str, Any]) -> list[str]:
    used = [facts["edge"] for facts in summary["facts"].values() if "edge" in facts]
    return [max(set(used), key=used.count)] if used else []
