"""Analysis of one bundle: from samples to fused p-values, maps and contributions."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from cloud.methods import AnalyzerOutput, AnyAnalyzer, load_analyzer
from cloud.methods.encoders import DetailEncoder, Encoder
from cloud.methods.fusion import Fusion
from cloud.modalities import cloud_modality
from cloud.serving.adaptive_depth import dispensable_members, score_to_decision
from cloud.serving.device import compile_denoisers, pick_device
from cloud.serving.encoding import Samples
from cloud.serving.explanations import Shares, explain
from cloud.serving.frames import clips_of_earlier_frames, frame_shares
from cloud.serving.maps import Scale
from cloud.serving.ports import EarlyDecision
from cloud.serving.precision import Precision, PrecisionChoice, choose_precision
from cloud.serving.scoring import ScoredBlock, joined_scores, score_blocks
from shared.bundle import ANALYSIS_FILE, CLOUD_FOLDER, FUSION_FILE, Bundle, npz_bytes
from shared.calibration import PValues
from shared.diffusion.local_corruption import CorruptionHead
from shared.errors import BundleError, DataError, SampleRejected
from shared.logs import EventLog, Throttle
from shared.modalities import load_preprocessor
from shared.preprocessing import Preprocessor
from shared.samples import ImageCrop, Opinion, Values, Verdict

FUSED = "fused"
EXPLAINED_P_VALUE = 0.05

log = EventLog("analysis")
_throttle = Throttle()


class Analysis:
    """The fitted analyzers of one bundle and their fusion. Judging does not change it, so threads may share one.

    It is fitted by `cloud.training.analysis`. Clips with a fused p-value above `explained_p_value` get no contributions
    of their frames, each of which costs another pass over the analyzers.
    """

    def __init__(
        self,
        preprocessor: Preprocessor,
        encoder: Encoder | None,
        analyzers: Mapping[str, AnyAnalyzer],
        fusion: Fusion,
        scales: Mapping[str, Scale],
        device: torch.device,
        explained_p_value: float = EXPLAINED_P_VALUE,
        precision: PrecisionChoice | None = None,
    ):
        self.preprocessor, self.encoder, self.analyzers = preprocessor, encoder, dict(analyzers)
        self.fusion, self.device = fusion, device
        self._scales, self._explained_p_value = dict(scales), explained_p_value
        self.precision = precision or PrecisionChoice(False, "set to fp32")

    def files(self) -> dict[str, bytes]:
        """Return the files of a bundle below `cloud/`, by path, without encoder and preprocessing."""
        description = {
            "analyzers": list(self.analyzers),
            "scales": {name: scale.to_json() for name, scale in self._scales.items()},
        }
        return {
            **{_state_file(name): save_tensors(analyzer.state()) for name, analyzer in self.analyzers.items()},
            FUSION_FILE: npz_bytes(self.fusion.to_arrays()),
            ANALYSIS_FILE: json.dumps(description, indent=1).encode(),
        }

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        device: str = "auto",
        explained_p_value: float = EXPLAINED_P_VALUE,
        *,
        precision: Precision = "fp32",
        false_alarm_rate: float = 0.01,
        compiled: bool = False,
    ) -> Self:
        """Return the analysis of a bundle on `device` ("auto", "cpu", "cuda", "cuda:1").

        `precision` is that of the networks, as far as the check at `false_alarm_rate` allows it. `compiled`: denoisers
        run compiled if they are on a GPU.

        Raises BundleError for a bundle whose cloud part is missing or damaged, SettingsError for an unusable device.
        """
        on = pick_device(device)
        name = bundle.manifest.bundle_id
        try:
            description = bundle.json(ANALYSIS_FILE)
            analyzers = {
                method: load_analyzer(method, load_tensors(bundle.read(_state_file(method)))).to(on)
                for method in description["analyzers"]
            }
            scales = {key: Scale.from_json(value) for key, value in description["scales"].items()}
            fusion = Fusion.from_arrays(bundle.arrays(FUSION_FILE))
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError, DataError) as error:
            raise BundleError(f"Bundle {name}: its cloud part cannot be used ({error}). Retrain the bundle.") from None
        if set(fusion.own) != set(analyzers):
            raise BundleError(f"Bundle {name}: fusion and analyzers do not match. Retrain the bundle.")
        encoder = cloud_modality(bundle.manifest.modality).load_encoder(bundle, str(on))
        preprocessor = load_preprocessor(bundle)
        if compiled and on.type == "cuda":
            compile_denoisers(analyzers)
        chosen = choose_precision(precision, bundle, preprocessor, analyzers, fusion, on, false_alarm_rate)
        return cls(preprocessor, encoder, analyzers, fusion, scales, on, explained_p_value, chosen)

    @property
    def corruption_head(self) -> CorruptionHead | None:
        """Copy on the CPU of the network that detects corrupted patches, if it is part of the fusion."""
        if not isinstance(self.encoder, DetailEncoder):
            return None
        heads = (self.analyzers[name].corruption_head for name in self.fusion.weights)
        head = next((head for head in heads if head is not None), None)
        return None if head is None else copy.deepcopy(head).cpu()

    @property
    def opinion_weights(self) -> tuple[float, float]:
        """Weights of an image screener's two opinions: analyzers that compare patches, and the corruption head."""
        weights = self.fusion.weights
        corruption = sum(weights[name] for name in weights if self.analyzers[name].corruption_head is not None)
        return 1.0 - corruption, corruption

    def judge(
        self, values: Sequence[Values], crops: Sequence[ImageCrop | None] = (), early: EarlyDecision | None = None
    ) -> list[Verdict | SampleRejected]:
        """Return one answer for each sample, in order; a sample that cannot be used gets its reason instead. Blocking.

        `crops`: the crop of its image that each sample shows, None for the whole image. Only the patches that a crop
        shows are judged. `early`: permission to leave out analyzers that cannot change the decision.
        """
        grid = self.encoder.grid if self.encoder is not None else (1, 1)
        samples = Samples.prepare(self.preprocessor, values, crops, grid)
        answers: list[Verdict | SampleRejected] = [SampleRejected("was not prepared") for _ in values]
        for position, reason in samples.rejections:
            answers[position] = SampleRejected(reason)
        for block, outputs in self._blocks(samples) if early is None else self._needed_blocks(samples, early):
            for position, verdict in zip(block.kept.tolist(), self._verdicts(block, outputs), strict=True):
                answers[position] = verdict
        return answers

    def score(self, values: NDArray[Any] | Sequence[Values]) -> dict[str, NDArray[np.float64]]:
        """Return scores (kept,) of the samples that can be used, by analyzer, and the fused ones under "fused"."""
        samples = Samples.prepare(self.preprocessor, values)
        scores = joined_scores(self.analyzers, [outputs for _, outputs in self._blocks(samples)])
        return {**scores, FUSED: self.fusion.statistic(scores, samples.modes())}

    def p_values(
        self, fused_scores: NDArray[np.float64], modes: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Return fused p-values (n,) of fused scores (n,); `modes` (n,) as `modes_of` gives them for graph inputs."""
        return self.fusion.p_values(fused_scores, modes).values

    def _blocks(self, samples: Samples) -> Iterator[ScoredBlock]:
        return score_blocks(self.encoder, self.analyzers, samples, self.device, self.precision.in_bfloat16)

    def _needed_blocks(self, samples: Samples, early: EarlyDecision) -> Iterator[ScoredBlock]:
        """Yield the samples in parts, each with the outputs of the analyzers that its decisions need."""
        if self.encoder is not None or not dispensable_members(self.analyzers, self.fusion):
            yield from self._blocks(samples)
            return
        for block in samples.blocks(None):
            allowed = early.at(block.kept.tolist())
            yield from score_to_decision(
                self.analyzers, self.fusion, block, self.device, allowed, self.precision.in_bfloat16
            )

    def _verdicts(self, samples: Samples, outputs: Mapping[str, AnalyzerOutput]) -> Iterator[Verdict]:
        scores, modes = joined_scores(outputs, [outputs]), samples.modes()
        left_out = tuple(name for name in self.fusion.weights if name not in outputs)
        statistic = self.fusion.least_statistic(scores, modes)
        fused = self.fusion.p_values(statistic, modes)
        own = {name: self.fusion.own[name].p_values(values, modes) for name, values in scores.items()}
        explanation = explain(samples, outputs, self._scales, self.fusion.weights)
        shares = explanation.shares or self._frame_shares(samples, fused.values)
        opinions = zip(*(_opinions(name, scores[name], p) for name, p in own.items()), strict=True)
        columns = (statistic.tolist(), fused.values.tolist(), fused.extrapolated.tolist(), opinions)
        for index, (score, p_value, extrapolated, held) in enumerate(zip(*columns, strict=True)):
            yield Verdict(
                score=score,
                p_value=p_value,
                extrapolated=extrapolated,
                opinions=held,
                anomaly_map=None if explanation.maps is None else explanation.maps[index],
                contributions=() if shares is None else shares[index],
                left_out=left_out,
            )

    def _frame_shares(self, samples: Samples, p_values: NDArray[np.float64]) -> list[Shares] | None:
        """Return the contributions of the frames of suspicious clips; None for samples without frames.

        `p_values`: (n,) fused. Other clips have no contributions. Nor has a clip whose frames cannot be scored: its
        verdict stands without them.
        """
        if not cloud_modality(self.preprocessor.modality).has_frames:
            return None
        suspicious = np.flatnonzero(p_values <= self._explained_p_value)
        shares: list[Shares] = [()] * len(p_values)
        if not len(suspicious):
            return shares
        try:
            found = self._earlier_p_values(samples.inputs[suspicious])
        except Exception as error:
            if count := _throttle.allow("frames"):
                log.error("frames_not_scored", reason=repr(error), count=count)
            return None
        for position, share in zip(
            suspicious, frame_shares(np.column_stack([found, p_values[suspicious]])), strict=True
        ):
            shares[position] = share
        return shares

    def _earlier_p_values(self, inputs: NDArray[Any]) -> NDArray[np.float64]:
        """Return the fused p-values (n, frames - 1) of all frames but the last; `inputs` (n, frames, ...)."""
        earlier = clips_of_earlier_frames(inputs)
        clips = Samples(self.preprocessor, earlier, None, np.arange(len(earlier)), [])
        scores = joined_scores(self.analyzers, [outputs for _, outputs in self._blocks(clips)])
        p_values = self.fusion.p_values(self.fusion.statistic(scores, None), None).values
        return p_values.reshape(len(inputs), -1)


def _opinions(name: str, scores: NDArray[np.float64], p: PValues) -> Iterator[Opinion]:
    """Return the opinions of one analyzer on all samples."""
    return map(Opinion, repeat(name), scores.tolist(), p.values.tolist(), p.extrapolated.tolist())


def _state_file(analyzer: str) -> str:
    return f"{CLOUD_FOLDER}analyzers/{analyzer}.safetensors"


def load_analysis(
    bundle: Bundle, device: str, false_alarm_rate: float, precision: Precision = "fp32", *, compiled: bool = False
) -> Analysis:
    """Return the analysis of a bundle, which explains the frames of every anomalous clip; raises as `Analysis.load`."""
    return Analysis.load(
        bundle,
        device,
        max(EXPLAINED_P_VALUE, false_alarm_rate),
        precision=precision,
        false_alarm_rate=false_alarm_rate,
        compiled=compiled,
    )
