"""Adaptive depth: members of the fusion that cannot change the decision any more are left out.

The fused statistic is a weighted sum of -log p over the members, and -log p is never negative. The sum over some of the
members is therefore the least that all of them can give, and its p-value an upper bound of the fused one. Once that
bound is at most the false-alarm rate, the sample is anomalous for all scores of the others. The opposite decision
cannot be made early: -log p has no upper limit, because the calibrated tail never ends.

Members that are quick, and those that verdicts are explained with, always score every sample. So do all members of
images and clips, whose maps are made of them.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.methods import Analyzer, AnalyzerOutput, AnyAnalyzer, Features
from cloud.methods.fusion import Fusion
from cloud.serving.encoding import Samples
from cloud.serving.ports import EarlyDecision
from cloud.serving.scoring import ScoredBlock, joined_scores, scoring

Outputs = dict[str, AnalyzerOutput]


def dispensable_members(analyzers: Mapping[str, AnyAnalyzer], fusion: Fusion) -> list[str]:
    """Return the members of the fusion that may be left out, in the order in which they are asked."""
    costly = {
        name
        for name, analyzer in analyzers.items()
        if isinstance(analyzer, Analyzer) and not analyzer.is_quick and not analyzer.explains
    }
    return [name for name in fusion.weights if name in costly]


def score_to_decision(
    analyzers: Mapping[str, AnyAnalyzer],
    fusion: Fusion,
    block: Samples,
    device: torch.device,
    early: EarlyDecision,
    in_bfloat16: bool = False,
) -> list[ScoredBlock]:
    """Return parts of a block of rows or windows, each with the outputs of the members that its samples needed.

    `early.exhaustive`: (n,) for the samples of the block, true for those that all members score.
    """
    exhaustive = np.asarray(early.exhaustive, dtype=np.bool_)
    last = dispensable_members(analyzers, fusion)
    parts: list[ScoredBlock] = []
    open_rows = np.arange(len(block))
    with scoring(None, in_bfloat16):
        features = block.features(None, device)
        outputs = {name: analyzer.score(features) for name, analyzer in analyzers.items() if name not in last}
        for name in last:
            modes = block.at(open_rows).modes()
            bound = fusion.p_values(fusion.least_statistic(joined_scores(outputs, [outputs]), modes), modes).values
            decided = (bound <= early.false_alarm_rate) & ~exhaustive[open_rows]
            if decided.any():
                parts.append((block.at(open_rows[decided]), _in_order(analyzers, _at(outputs, decided))))
                open_rows, outputs = open_rows[~decided], _at(outputs, ~decided)
            if not len(open_rows):
                return parts
            outputs[name] = analyzers[name].score(_rows(features, open_rows))
    return [*parts, (block.at(open_rows), _in_order(analyzers, outputs))]


def _rows(features: Features, rows: NDArray[np.intp]) -> Features:
    if len(rows) == len(features):
        return features
    return features.at(torch.from_numpy(rows).to(features.vectors.device))


def _at(outputs: Outputs, chosen: NDArray[np.bool_]) -> Outputs:
    """Return the outputs for some of the samples; `chosen`: (n,)."""
    rows = torch.from_numpy(np.flatnonzero(chosen))

    def some(values: torch.Tensor | None) -> torch.Tensor | None:
        return None if values is None else values[rows.to(values.device)]

    return {
        name: AnalyzerOutput(
            output.scores[rows.to(output.scores.device)],
            some(output.maps),
            some(output.reconstruction),
            some(output.surprises),
        )
        for name, output in outputs.items()
    }


def _in_order(analyzers: Mapping[str, AnyAnalyzer], outputs: Outputs) -> Outputs:
    return {name: outputs[name] for name in analyzers if name in outputs}
