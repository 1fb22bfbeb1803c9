"""All that the cloud does with one bundle: from samples to fused p-values, maps and contributions."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cloud.methods import ANALYZERS, BASELINES, DEFAULT_METHODS, AnalyzerOutput, AnyAnalyzer, LocalCorruption, Placed
from cloud.methods.fusion import Fusion
from cloud.serving.encoding import VECTORS_A_BLOCK, DetailEncoder, Encoder, Samples, vector_features
from cloud.serving.explanations import explain, fit_scales
from cloud.serving.maps import Scale
from cloud.training.fitting import FitPlan, Said, fit_analyzers, outputs_of, scores_of
from cloud.training.worth import image_worth
from shared.bundle import Bundle, npz_bytes
from shared.diffusion.local_corruption import CorruptionHead
from shared.errors import BundleError, DataError, SampleRejected, SettingsError
from shared.modalities import load_preprocessor
from shared.modality import Modality
from shared.preprocessing import Preprocessor, modes_of
from shared.samples import ImageCrop, Opinion, Values, Verdict

FOLDER = "cloud/"
FUSION_FILE = f"{FOLDER}fusion.npz"
ANALYSIS_FILE = f"{FOLDER}analysis.json"
FUSED = "fused"
FOLDS = 10
LEAST_TEACHING = 1e-3  # the weight of a teacher that is worth nothing: a head has to learn something

Progress = Callable[[float], None]


class Analysis:
    """The fitted analyzers of one bundle, with their fusion. Judging changes nothing in it: threads may share one."""

    def __init__(
        self,
        preprocessor: Preprocessor,
        encoder: Encoder | None,
        analyzers: Mapping[str, AnyAnalyzer],
        fusion: Fusion,
        scales: Mapping[str, Scale],
        device: torch.device,
        rehearsal: "Analysis | None" = None,
    ):
        self.preprocessor = preprocessor
        self.device = device
        self._encoder, self._analyzers, self._fusion, self._scales = encoder, dict(analyzers), fusion, dict(scales)
        self._rehearsal = rehearsal

    @classmethod
    def fit(
        cls,
        preprocessor: Preprocessor,
        encoder: Encoder | None,
        train: NDArray[Any],
        held_out: NDArray[Any],
        *,
        generator: torch.Generator,
        progress: Progress | None = None,
        device: str = "auto",
        methods: Sequence[str] = (),
        fused: Sequence[str] = (),
        refit: bool = True,
        effort: float = 1.0,
    ) -> Self:
        """Fit the analyzers on normal samples (n, ...), and calibrate them and their fusion on held-out ones.

        With `refit` the held-out samples are learned from, too, by those methods that are fitted in seconds: of rows,
        each of FOLDS parts is judged by methods that saw all the others, as a new sample is judged by methods that saw
        all (cross-conformal). The windows of a series are near copies of their neighbours, so their end is judged as a
        whole by what saw only the beginning; the methods that judge know more than that, so p-values err to the safe
        side.

        `encoder` is for images and clips, None otherwise. `methods` are those of the modality and the baselines where
        none are named, and `fused` those of them whose opinions make the verdict, all where none are named. `effort`
        is the share of their steps that trainings get. The two
        sets share no sample, or p-values come out too small. What cannot be used is left out. Raises DataError if there
        is too little of either.
        """
        normals, apart = Samples.prepare(preprocessor, train), Samples.prepare(preprocessor, held_out)
        if len(normals) < 2:
            raise DataError(f"Analyzers need at least 2 normal samples to learn from, not {len(normals)}.")
        report = progress or (lambda share: None)
        if not methods:
            fused = fused or DEFAULT_METHODS[preprocessor.modality]
            methods = tuple(dict.fromkeys((*DEFAULT_METHODS[preprocessor.modality], *BASELINES)))
        on, of_series = pick_device(device), preprocessor.modality is Modality.SERIES
        plan = FitPlan(
            methods, on, generator.initial_seed(), folds=_folds(preprocessor.modality) if refit else 0, effort=effort
        )
        fitted = fit_analyzers(encoder, normals, apart, plan, report)
        worth = image_worth(encoder, fitted, fused or methods, apart, plan)
        fusion = Fusion.fit(fitted.scores, apart.modes(), fused, in_order=of_series, worth=worth)
        scales = fit_scales(fitted.said)
        report(1.0)
        rehearsal = cls(preprocessor, encoder, fitted.rehearsed, fusion, scales, on)
        return cls(preprocessor, encoder, fitted.analyzers, fusion, scales, on, rehearsal)

    def files(self) -> dict[str, bytes]:
        """What a bundle stores, by path in the archive (all below `cloud/`); encoder and preprocessing apart."""
        description = {
            "analyzers": list(self._analyzers),
            "scales": {name: scale.to_json() for name, scale in self._scales.items()},
        }
        return {
            **{_state_file(name): save_tensors(analyzer.state()) for name, analyzer in self._analyzers.items()},
            FUSION_FILE: npz_bytes(self._fusion.to_arrays()),
            ANALYSIS_FILE: json.dumps(description, indent=1).encode(),
        }

    @classmethod
    def load(cls, bundle: Bundle, device: str = "auto") -> Self:
        """The analysis of a bundle on `device` ("auto", "cpu", "cuda", "cuda:1").

        Raises BundleError for a bundle whose cloud part is missing or damaged, SettingsError for an unusable device.
        """
        from cloud.methods.encoders import load_encoder  # brings the backbone's code: only where bundles are opened

        on = pick_device(device)
        name = bundle.manifest.bundle_id
        try:
            description = bundle.json(ANALYSIS_FILE)
            analyzers = {
                method: _from_state(method, load_tensors(bundle.read(_state_file(method)))).to(on)
                for method in description["analyzers"]
            }
            scales = {key: Scale.from_json(value) for key, value in description["scales"].items()}
            fusion = Fusion.from_arrays(bundle.arrays(FUSION_FILE))
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError, DataError) as error:
            raise BundleError(f"Bundle {name}: its cloud part cannot be used ({error}). Train it anew.") from None
        if set(fusion.own) != set(analyzers):
            raise BundleError(f"Bundle {name}: its fusion is not of its analyzers. Train it anew.")
        encoder = load_encoder(bundle, str(on))
        return cls(load_preprocessor(bundle), encoder, analyzers, fusion, scales, on)

    @property
    def rehearsal(self) -> "Analysis":
        """The analysis before anything was learned from the held-out samples, right after `fit`; later itself.

        It teaches the screener, which is calibrated on those samples, and gives figures on them.
        """
        return self._rehearsal or self

    @property
    def corruption_head(self) -> CorruptionHead | None:
        """The network that tells corrupted places of images, on the CPU, where it is among what is fused."""
        analyzer = self._analyzers.get(LocalCorruption.name) if LocalCorruption.name in self._fusion.hands else None
        if not isinstance(analyzer, LocalCorruption) or not isinstance(self._encoder, DetailEncoder):
            return None
        return copy.deepcopy(analyzer.head).cpu()

    @property
    def opinion_weights(self) -> tuple[float, float]:
        """What the screener of images is to make of its two opinions: of methods that compare patches, and of the
        network that tells corrupted ones."""
        corruption = self._fusion.weights.get(LocalCorruption.name, 0.0)
        return 1.0 - corruption, corruption

    def judge(self, values: Sequence[Values], parts: Sequence[ImageCrop | None] = ()) -> list[Verdict | SampleRejected]:
        """One answer for each sample, in order; a sample that cannot be used gets its reason instead. Blocks.

        `parts`: which part of its image the values of each are, None for all of it. A part is judged by what it shows.
        """
        grid = self._encoder.grid if self._encoder is not None else (1, 1)
        samples = Samples.prepare(self.preprocessor, values, parts, grid)
        answers: list[Verdict | SampleRejected] = [SampleRejected("was not prepared") for _ in values]
        for position, reason in samples.rejections:
            answers[position] = SampleRejected(reason)
        kept = iter(samples.kept.tolist())
        for block, outputs in self._outputs(samples):
            for verdict in self._verdicts(block, outputs):
                answers[next(kept)] = verdict
        return answers

    def score(self, values: NDArray[Any] | Sequence[Values]) -> dict[str, NDArray[np.float64]]:
        """Scores (kept,) of the samples that can be used, by analyzer, and the fused ones under "fused"."""
        samples = Samples.prepare(self.preprocessor, values)
        scores = scores_of(self._analyzers, [outputs for _, outputs in self._outputs(samples)])
        return {**scores, FUSED: self._fusion.statistic(scores, samples.modes())}

    def teacher(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """What a head is distilled from: log(1 + fused score), (n,), of graph inputs (n, dim); `rows` do not matter.

        The logarithm keeps the few far vectors from drowning the many near the normals, where ranks are decided.
        """
        del rows
        inputs, spec = vectors.cpu().numpy(), self.preprocessor.spec
        features = vector_features(inputs, self.preprocessor, self.device)
        members = {name: self._analyzers[name] for name in self._fusion.hands}
        outputs = [
            {name: analyzer.score(block) for name, analyzer in members.items()}
            for block in features.blocks(VECTORS_A_BLOCK)
        ]
        fused = self._fusion.statistic(scores_of(members, outputs), modes_of(inputs, spec))
        return torch.from_numpy(np.log1p(fused)).to(vectors)

    def patch_teacher(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """What a head for patches is distilled from, (n,), of patches (n, dim): the fused analyzers that compare these.

        Their deviations above normal, averaged by their weights; the inverse hyperbolic sine, which is the identity
        near 0 and a logarithm far out, keeps far vectors from drowning the others. `rows` do not matter.
        """
        del rows
        names = [name for name in self._fusion.hands if isinstance(self._analyzers[name], Placed)]
        weights = torch.tensor([max(self._fusion.weights[name], LEAST_TEACHING) for name in names])
        with torch.no_grad():
            found = torch.stack([self._placed(name).deviations(vectors.to(self.device)) for name in names])
        mean = (weights.to(found) / weights.sum()) @ found
        return mean.asinh().to(vectors)

    def _placed(self, name: str) -> Placed:
        analyzer = self._analyzers[name]
        assert isinstance(analyzer, Placed)  # by whom it is chosen
        return analyzer

    @property
    def teaches_patches(self) -> bool:
        """Whether there is anything for `patch_teacher` to ask."""
        return any(isinstance(self._analyzers[name], Placed) for name in self._fusion.hands)

    def p_values(
        self, fused_scores: NDArray[np.float64], modes: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Fused p-values (n,) of fused scores (n,); `modes` (n,) as `modes_of` gives them of graph inputs."""
        return self._fusion.p_values(fused_scores, modes).values

    def _outputs(self, samples: Samples) -> Iterator[Said]:
        return outputs_of(self._encoder, self._analyzers, samples, self.device)

    def _verdicts(self, samples: Samples, outputs: Mapping[str, AnalyzerOutput]) -> Iterator[Verdict]:
        scores, modes = scores_of(self._analyzers, [outputs]), samples.modes()
        statistic = self._fusion.statistic(scores, modes)
        fused = self._fusion.p_values(statistic, modes)
        own = {name: self._fusion.own[name].p_values(values, modes) for name, values in scores.items()}
        why = explain(samples, outputs, self._scales, self._fusion.weights)
        for index in range(len(statistic)):
            opinions = tuple(
                Opinion(name, float(scores[name][index]), float(p.values[index]), bool(p.extrapolated[index]))
                for name, p in own.items()
            )
            yield Verdict(
                score=float(statistic[index]),
                p_value=float(fused.values[index]),
                extrapolated=bool(fused.extrapolated[index]),
                opinions=opinions,
                anomaly_map=None if why.maps is None else why.maps[index],
                contributions=() if why.shares is None else why.shares[index],
            )


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first CUDA device, else the CPU. Raises SettingsError if unusable.

    One of CUDA is made to say what the CPU says.
    """
    try:
        device = torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        advice = 'set "cpu"' if name == "auto" else 'set "auto" or "cpu"'
        raise SettingsError(f"Device {name!r} cannot be used ({reason}): {advice}.") from None
    if device.type == "cuda":
        _agree_with_the_cpu()
    return device


def _agree_with_the_cpu() -> None:
    """Switch off TF32, PyTorch's default for convolutions on CUDA: by it p-values were up to 1.7 times those of a CPU,
    on which a bundle may have been calibrated (docs/benchmarks/analysis_device.md)."""
    torch.backends.cudnn.allow_tf32 = False


def _folds(modality: Modality) -> int:
    """In how many parts the held-out samples are judged. The windows of a series are near copies of their neighbours;
    images and clips are not learned from again: each is hundreds of vectors, of which a third more adds little."""
    return {Modality.TABULAR: FOLDS, Modality.SERIES: 1}.get(modality, 0)


def _from_state(method: str, state: Mapping[str, Tensor]) -> AnyAnalyzer:
    kind = ANALYZERS[method]
    return Placed.from_state(kind, state) if Placed.holds(state) else kind.from_state(state)


def _state_file(analyzer: str) -> str:
    return f"{FOLDER}analyzers/{analyzer}.safetensors"
