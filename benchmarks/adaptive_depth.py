"""Decisions and cost of adaptive depth beside those of all members of the fusion.

Each table is fitted with the default methods on half of at most 1600 normal rows, by a tenth of the training steps, and
calibrated on a quarter.
The last quarter and the anomalies are judged twice: by all members, and with members left out that cannot change the
decision at a false-alarm rate of 1 %.

* `different_decisions`: samples whose two decisions differ.
* `wrong_bounds`: samples whose p-value of all members is above the bound.
* `left_out_share`: share of the scores of fused members that were left out; `of_anomalous`: the same among the samples
  judged anomalous.
* `ratio`: time of all members over time with adaptive depth, on the same samples in batches of 64.

The share left out is small: one member alone rarely has enough weight to decide, so the setting is off by default. The
ratio of one pass varied by a fifth on a shared machine, also for sets without a member left out.

Windows of a series have no member that may be left out, because all of them are quick. Neither have images, whose maps
are made of all members.
"""

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.data_folder import data_folder
from cloud.serving.adaptive_depth import dispensable_members
from cloud.serving.analysis import Analysis
from cloud.serving.ports import EarlyDecision
from cloud.training.analysis import AnalysisOptions, fit_analysis
from shared.bundle import InputSpec
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from shared.samples import Verdict

SETS = ("6_cardio", "38_thyroid", "43_WDBC", "29_Pima", "4_breastw", "30_satellite")
RATE, BATCH, MAX_ROWS = 0.01, 64, 400


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return the figures by set; `quick` takes two sets and a twentieth of the training."""
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name in SETS[:2] if quick else SETS:
        path = data_folder() / "adbench" / "Classical" / f"{name}.npz"
        if not path.is_file():
            continue
        with np.load(path) as data:
            results[name] = _measure(data["X"].astype(np.float32), data["y"].astype(bool), 0.05 if quick else 0.1)
        print(name, results[name], flush=True)
    return results


def _measure(rows: NDArray[np.float32], labels: NDArray[np.bool_], effort: float) -> dict[str, Any]:
    random = np.random.default_rng(0)
    normal = random.permutation(rows[~labels])[: 4 * MAX_ROWS]
    half, quarter = len(normal) // 2, len(normal) // 4
    judged = np.concatenate([normal[half + quarter :], random.permutation(rows[labels])[:MAX_ROWS]])
    spec = InputSpec(channels=tuple(f"x{number}" for number in range(rows.shape[1])))
    preprocessor = fit_preprocessor(Modality.TABULAR, normal[:half], spec)
    options = AnalysisOptions(device="cpu", effort=effort)
    analysis = fit_analysis(preprocessor, None, normal[:half], normal[half : half + quarter], options).analysis
    judged = random.permutation(judged)
    (whole, whole_s), (early, early_s) = (_timed(analysis, judged, is_early) for is_early in (False, True))
    pairs = [(one, other) for one, other in zip(whole, early, strict=True) if one.p_value and other.p_value]
    members = len(analysis.fusion.weights)
    anomalous = [other for one, other in pairs if one.p_value is not None and one.p_value <= RATE]
    return {
        "samples": len(pairs),
        "may_be_left_out": ", ".join(dispensable_members(analysis.analyzers, analysis.fusion)),
        "anomalous": len(anomalous),
        "different_decisions": sum((_p(one) <= RATE) != (_p(other) <= RATE) for one, other in pairs),
        "wrong_bounds": sum(_p(one) > _p(other) * (1 + 1e-9) for one, other in pairs if other.left_out),
        "left_out_share": _share([other for _, other in pairs], members),
        "of_anomalous": _share(anomalous, members),
        "ratio": round(whole_s / early_s, 2),
    }


def _timed(analysis: Analysis, rows: NDArray[np.float32], is_early: bool) -> tuple[list[Verdict], float]:
    """Return the verdicts and the seconds that they took."""
    found: list[Verdict] = []
    started_s = time.perf_counter()
    for start in range(0, len(rows), BATCH):
        batch = list(rows[start : start + BATCH])
        early = EarlyDecision(RATE, [False] * len(batch)) if is_early else None
        answers = analysis.judge(batch, (), early)
        found += [answer if isinstance(answer, Verdict) else Verdict() for answer in answers]
    return found, time.perf_counter() - started_s


def _share(verdicts: list[Verdict], members: int) -> float:
    return round(sum(len(each.left_out) for each in verdicts) / max(members * len(verdicts), 1), 3)


def _p(verdict: Verdict) -> float:
    assert verdict.p_value is not None
    return verdict.p_value
