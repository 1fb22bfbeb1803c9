"""Findings of an evaluation: its three most useful figures, and sentences on what cannot be trusted, from figures."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from cloud.evaluation.metrics import clopper_pearson
from cloud.evaluation.page import display_name
from cloud.serving.analysis import FUSED

Figures: TypeAlias = Mapping[str, Mapping[str, float]]
Finding: TypeAlias = tuple[float, str]  # difference from the expected share or the better method, and the sentence

FEW_ANOMALIES = 20
FEW_NORMALS = 50
TOLERANCE = 0.02  # a method counts as below another from this difference on
FACTOR = 3.0  # realised over expected false alarms
RATE = 5  # per cent
_HEADLINES = ("vus_pr", "frame_auroc", "auroc")


def headline_of(methods: Figures) -> str:
    """Return the name of the figure to compare methods by; "" without labels."""
    return next((name for name in _HEADLINES if name in methods.get(FUSED, {})), "")


def key_figures(result: Mapping[str, Any]) -> list[str]:
    """Return the three most useful figures of an evaluation in words."""
    methods, edge = result["methods"], result["edge"]
    fused, device = methods[FUSED], methods[edge]
    headline = headline_of(methods)
    if not headline:
        return [
            f"{_per_cent(device[f'flagged_at_{RATE}'])} of the samples are flagged by the device's screener and "
            f"{_per_cent(fused[f'flagged_at_{RATE}'])} by the fused verdict at p <= 0.05; normal samples give 5 %.",
            f"{_per_cent(fused['flagged_at_1'])} are flagged by the fused verdict at p <= 0.01.",
            f"The lowest fused p-value is {fused['p_lowest']:.2g}.",
        ]
    name = display_name(headline)
    return [
        f"{name}: fused verdict {_points(fused[headline])}, device {_points(device[headline])}.",
        f"At {RATE} % false alarms the fused verdict finds {_per_cent(fused[f'recall_at_{RATE}_far'])} of the "
        f"anomalies, the device {_per_cent(device[f'recall_at_{RATE}_far'])}.",
        f"At p <= 0.05 the device flags {_per_cent(device[f'false_alarms_at_{RATE}'])} of the normal samples "
        f"({_interval(device)}) and {_per_cent(device[f'recall_at_p_{RATE}'])} of the anomalies.",
    ]


def findings(
    result: Mapping[str, Any], members: Sequence[str], differences: Sequence[str], normals: int | None
) -> list[str]:
    """Return sentences on an evaluation; empty if nothing stands out.

    The largest difference comes first, and limits of the measurement come last.

    Args:
        result: Result of the evaluation as JSON values.
        members: Analyzers that the verdict fuses.
        differences: Channels of normal samples that differ from the training data, in words.
        normals: Number of normal samples; None without labels.
    """
    found = [
        *_flagged(result, differences, normals),
        *_below_members(result["methods"], members),
        *_below_baselines(result["methods"], result["edge"]),
    ]
    found.sort(key=lambda finding: -finding[0])
    return [*(sentence for _, sentence in found), *_too_few(result["anomalies"], normals)]


def _flagged(result: Mapping[str, Any], differences: Sequence[str], normals: int | None) -> list[Finding]:
    """Return a finding if normal samples, or unlabelled ones, are flagged far more often than expected."""
    device = result["methods"][result["edge"]]
    labelled = f"false_alarms_at_{RATE}" in device
    share = device[f"false_alarms_at_{RATE}"] if labelled else device[f"flagged_at_{RATE}"]
    count = (normals or 0) if labelled else result["samples"]
    if not labelled and normals == 0:
        return []
    low = clopper_pearson(round(share * count), count)[0] if count else 0.0
    if share <= FACTOR * RATE / 100 or low <= RATE / 100:
        return []
    kind = "normal samples" if labelled or normals else "samples"
    amount = f"All {kind}" if share > 0.995 else f"{_per_cent(share)} of the {kind}"
    cause = f" ({'; '.join(differences)})" if differences else ""
    excess = share - RATE / 100
    flagged = f"{amount} are flagged at p <= 0.05: they"
    if kind == "samples":
        advice = "If they are normal, train again with samples like these."
        return [(excess, f"{flagged} are anomalous, or differ from the training data{cause}. {advice}")]
    return [(excess, f"{flagged} differ from the training data{cause}. Train again with normal samples like these.")]


def _below_members(methods: Figures, members: Sequence[str]) -> list[Finding]:
    headline = headline_of(methods)
    if not headline:
        return []
    fused = methods[FUSED][headline]
    better = [name for name in members if methods.get(name, {}).get(headline, 0.0) > fused + TOLERANCE]
    if len(members) < 2 or not better:
        return []
    better.sort(key=lambda name: -methods[name][headline])
    names = " and ".join(f"{name} {_points(methods[name][headline])}" for name in better)
    others = [name for name in members if name not in better]
    cause = f"the other members ({', '.join(others)}) pull it down" if others else "their opinions disagree"
    sentence = (
        f"The fusion ({_points(fused)}) is below its own members {names} in {display_name(headline)}: {cause}. "
        "If further labelled data shows the same, name the members to fuse in the setting fused of vedette train."
    )
    return [(methods[better[0]][headline] - fused, sentence)]


def _below_baselines(methods: Figures, edge: str) -> list[Finding]:
    headline = headline_of(methods)
    baselines = [name for name in methods if name.startswith("baseline_")]
    if not headline or not baselines:
        return []
    best = max(baselines, key=lambda name: methods[name].get(headline, 0.0))
    bound = methods[best].get(headline, 0.0)
    lower = [name for name in (FUSED, edge) if methods[name][headline] < bound - TOLERANCE]
    words = {FUSED: "the fused verdict", edge: "the device's screener"}
    if not lower:
        return []
    text = " and ".join(f"{words[name]} ({_points(methods[name][headline])})" for name in lower)
    verb = "is" if len(lower) == 1 else "are"
    sentence = (
        f"{text[0].upper()}{text[1:]} {verb} below the baseline {best} ({_points(bound)}) in {display_name(headline)}: "
        "more training data, or a higher effort, may help."
    )
    return [(bound - min(methods[name][headline] for name in lower), sentence)]


def _too_few(anomalies: int | None, normals: int | None) -> list[str]:
    if anomalies is None:
        return []
    found = []
    if anomalies < FEW_ANOMALIES:
        found.append(
            f"Only {anomalies} anomal{'y is' if anomalies == 1 else 'ies are'} labelled: each is "
            f"{100 / anomalies:.0f} points of recall, so differences below {200 / anomalies:.0f} points mean little."
        )
    if normals is not None and normals < FEW_NORMALS:
        found.append(
            f"Only {normals} normal samples: false-alarm rates below {100 / max(normals, 1):.0f} % cannot be measured."
        )
    return found


def _interval(figures: Mapping[str, float]) -> str:
    low, high = (figures[f"false_alarms_at_{RATE}_{end}"] for end in ("low", "high"))
    return f"95 % interval {100 * low:.1f} to {100 * high:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:.1f}"


def _per_cent(share: float) -> str:
    return f"{100 * share:.3g} %"
