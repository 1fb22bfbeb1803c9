"""Check of a bundle's analysis in bfloat16, and its choice of precision.

On normal samples that the bundle holds (`REFERENCE_FILE`), the fused p-values in bfloat16 are compared with those in
float32. Beyond the limits the analysis stays in float32.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.methods import Analyzer, AnyAnalyzer
from cloud.methods.base import Need
from cloud.methods.fusion import Fusion
from cloud.modalities import cloud_modality
from cloud.modalities.base import VectorModality
from cloud.serving.explanations import as_array
from cloud.serving.scoring import scoring
from shared.bundle import REFERENCE_FILE, Bundle
from shared.logs import EventLog
from shared.preprocessing import Preprocessor, modes_of

CHECKED = 512  # samples of the reference
MAX_P_FACTOR = 1.25  # between the fused p-values of a sample in both precisions
MAX_LOG_FACTOR = 50.0  # keeps the reported factor finite
MAX_CHANGED_SHARE = 0.002  # of the samples: other decisions at the false-alarm rate

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
_LOG = EventLog("serving")


@dataclass(frozen=True, slots=True)
class PrecisionChoice:
    """Precision of an analysis, and the reason.

    `p_factor`: largest factor between the p-values of both precisions; None without a check. `changed`: number of
    other decisions among `checked` samples.
    """

    in_bfloat16: bool
    reason: str
    p_factor: float | None = None
    changed: int = 0
    checked: int = 0


def choose_precision(
    wanted: Precision,
    bundle: Bundle,
    preprocessor: Preprocessor,
    analyzers: Mapping[str, AnyAnalyzer],
    fusion: Fusion,
    device: torch.device,
    false_alarm_rate: float,
) -> PrecisionChoice:
    """Return the precision of a loaded analysis on its device.

    "auto" is "bf16" on a GPU that computes in bfloat16, else "fp32". A choice that depended on a check is logged.
    """
    if wanted == "fp32":
        return PrecisionChoice(False, "set to fp32")
    if wanted == "auto" and not (device.type == "cuda" and torch.cuda.is_bf16_supported()):
        return PrecisionChoice(False, "auto is fp32 on this device")
    choice = _checked(bundle, preprocessor, analyzers, fusion, device, false_alarm_rate)
    facts = {"p_factor": choice.p_factor, "changed": choice.changed, "checked": choice.checked}
    log = _LOG.info if choice.in_bfloat16 else _LOG.warning
    precision = "bf16" if choice.in_bfloat16 else "fp32"
    log("precision", bundle=bundle.manifest.bundle_id, precision=precision, reason=choice.reason, **facts)
    return choice


def _checked(
    bundle: Bundle,
    preprocessor: Preprocessor,
    analyzers: Mapping[str, AnyAnalyzer],
    fusion: Fusion,
    device: torch.device,
    false_alarm_rate: float,
) -> PrecisionChoice:
    modality = cloud_modality(preprocessor.modality)
    members = {name: analyzers[name] for name in fusion.weights}
    if REFERENCE_FILE not in bundle.files or not isinstance(modality, VectorModality):
        return PrecisionChoice(False, "the bundle holds no reference to check bf16 with")
    if any(isinstance(one, Analyzer) and Need.WINDOWS in one.needs for one in members.values()):
        return PrecisionChoice(False, "the reference holds no windows, and an analyzer needs them")
    inputs = preprocessor.graph_inputs(bundle.arrays(REFERENCE_FILE)["held_out"])
    inputs = inputs[np.linspace(0, len(inputs) - 1, min(CHECKED, len(inputs))).astype(np.intp)]
    modes = modes_of(inputs, preprocessor.spec)

    def statistic(in_bfloat16: bool) -> NDArray[np.float64]:
        with scoring(None, in_bfloat16):
            features = modality.vector_features(inputs, preprocessor, device)
            scores = {name: as_array(analyzer.score(features).scores) for name, analyzer in members.items()}
        return fusion.statistic(scores, modes)

    return _compared(statistic(False), statistic(True), fusion, modes, false_alarm_rate)


def _compared(
    full: NDArray[Any], short: NDArray[Any], fusion: Fusion, modes: NDArray[np.int64] | None, false_alarm_rate: float
) -> PrecisionChoice:
    """Return the choice for fused scores (n,) in float32 and in bfloat16.

    Factors are of p-values without steps: neighbours in the calibration that swap places are no large change.
    """
    apart = np.abs(fusion.fused.surprise(full, modes) - fusion.fused.surprise(short, modes))
    factor = math.exp(min(float(apart.max()), MAX_LOG_FACTOR))
    alarms = (fusion.p_values(scores, modes).values <= false_alarm_rate for scores in (full, short))
    changed = int(np.not_equal(*alarms).sum())
    figures = (factor, changed, len(full))
    if not factor <= MAX_P_FACTOR:
        return PrecisionChoice(False, f"p-values in bf16 differ by a factor above {MAX_P_FACTOR}", *figures)
    if changed > MAX_CHANGED_SHARE * len(full):
        return PrecisionChoice(False, f"more than {MAX_CHANGED_SHARE:.1%} of the decisions differ in bf16", *figures)
    return PrecisionChoice(True, "p-values and decisions in bf16 are within the limits", *figures)
