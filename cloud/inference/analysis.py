"""All that the cloud does with one bundle: from samples to fused p-values, maps and contributions."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cloud.analyzers import ANALYZERS, Analyzer, AnalyzerOutput, Features, Workshop
from cloud.fusion import Fusion
from cloud.inference.maps import Scale, contributions, to_bytes
from shared.bundle import Bundle, npz_bytes
from shared.diffusion.training import one_thread
from shared.errors import BundleError, DataError, SampleRejected, SettingsError
from shared.preprocessing import Preprocessor, load_preprocessor
from shared.samples import Modality, Opinion, Values

FOLDER = "cloud/"
FUSION_FILE = f"{FOLDER}fusion.npz"
ANALYSIS_FILE = f"{FOLDER}analysis.json"
FUSED = "fused"
VECTORS_A_BLOCK = 4096
IMAGES_A_BLOCK = 8
MAX_FIT_VECTORS = 100_000
RESIDUAL = "residual"

Progress = Callable[[float], None]


class Encoder(Protocol):
    """Images to patch vectors; see `cloud.encoders`."""

    grid: tuple[int, int]

    def encode(self, images: NDArray[Any]) -> Tensor:
        """(n, patches, dim) float32 of images (n, height, width, 3) uint8."""
        ...


@dataclass(frozen=True)
class Judgement:
    """The cloud's answer for one sample. `score` is the fused one; higher is more anomalous.

    `anomaly_map`: (rows, columns) uint8 of an image's patches, (length, channels) of a window, None for a table's row.
    `contributions`: the share of each feature or channel, summing to 1; empty for images.
    """

    score: float
    p_value: float
    extrapolated: bool
    opinions: tuple[Opinion, ...]
    anomaly_map: NDArray[np.uint8] | None
    contributions: tuple[tuple[str, float], ...]


class Analysis:
    """The fitted analyzers of one bundle, with their fusion. Judging changes nothing in it: threads may share one."""

    def __init__(
        self,
        preprocessor: Preprocessor,
        encoder: Encoder | None,
        analyzers: Mapping[str, Analyzer],
        fusion: Fusion,
        scales: Mapping[str, Scale],
        device: torch.device,
    ):
        self.preprocessor = preprocessor
        self.device = device
        self._encoder, self._analyzers, self._fusion, self._scales = encoder, dict(analyzers), fusion, dict(scales)

    @classmethod
    def fit(
        cls,
        preprocessor: Preprocessor,
        encoder: Encoder | None,
        train_inputs: NDArray[Any],
        held_out_inputs: NDArray[Any],
        *,
        generator: torch.Generator,
        progress: Progress | None = None,
        device: str = "auto",
        methods: Sequence[str] = tuple(ANALYZERS),
    ) -> Self:
        """Fit the analyzers on normal graph inputs (n, ...), the fusion on held-out normal ones.

        `encoder` is for images, None otherwise. The two sets of inputs share no sample, or p-values come out too small.
        Raises DataError if there is too little of either.
        """
        if len(train_inputs) < 2:
            raise DataError(f"Analyzers need at least 2 normal samples to learn from, not {len(train_inputs)}.")
        report = progress or (lambda share: None)
        on = pick_device(device)
        features = _fit_features(encoder, train_inputs, on, generator)
        analyzers: dict[str, Analyzer] = {}
        workshop = Workshop(seed=generator.initial_seed())
        for index, name in enumerate(methods):
            analyzer = ANALYZERS[name]()
            analyzer.fit(features, workshop, progress=_part(report, 0.9 * index, 0.9, len(methods)))
            analyzers[name] = analyzer.to(on)
        held_out = list(_outputs(encoder, analyzers, held_out_inputs, on))
        fusion = Fusion.fit(_scores(analyzers, [outputs for _, outputs in held_out]))
        scales = _fit_scales(preprocessor, held_out)
        report(1.0)
        return cls(preprocessor, encoder, analyzers, fusion, scales, on)

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
        from cloud.encoders import load_encoder  # brings the backbone's code: only where bundles are opened

        on = pick_device(device)
        name = bundle.manifest.bundle_id
        try:
            description = bundle.json(ANALYSIS_FILE)
            analyzers = {
                method: ANALYZERS[method].from_state(load_tensors(bundle.read(_state_file(method)))).to(on)
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
    def analyzer_names(self) -> tuple[str, ...]:
        """The analyzers there are."""
        return tuple(self._analyzers)

    def judge(self, values: Sequence[Values]) -> list[Judgement | SampleRejected]:
        """One answer for each sample, in order; a sample that cannot be used gets its reason instead. Blocks."""
        prepared = self.preprocessor.prepare(values)
        answers: list[Judgement | SampleRejected] = [SampleRejected("was not prepared") for _ in values]
        for position, reason in prepared.rejections:
            answers[position] = SampleRejected(reason)
        kept = iter(prepared.kept.tolist())
        for inputs, outputs in _outputs(self._encoder, self._analyzers, prepared.inputs, self.device):
            for judgement in self._judgements(inputs, outputs):
                answers[next(kept)] = judgement
        return answers

    def score_inputs(self, inputs: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """Scores (n,) of graph inputs (n, ...), by analyzer, and the fused ones under "fused"."""
        outputs = [output for _, output in _outputs(self._encoder, self._analyzers, inputs, self.device)]
        scores = _scores(self._analyzers, outputs)
        return {**scores, FUSED: self._fusion.statistic(scores)}

    def teacher(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """What a head is distilled from: log(1 + fused score), (n,), of vectors (n, dim); `rows` do not matter.

        The logarithm keeps the few far vectors from drowning the many near the normals, where ranks are decided.
        """
        del rows
        features = Features(vectors.to(self.device).unsqueeze(1))
        outputs = [
            {name: analyzer.score(block) for name, analyzer in self._analyzers.items()}
            for block in features.blocks(VECTORS_A_BLOCK)
        ]
        fused = self._fusion.statistic(_scores(self._analyzers, outputs))
        return torch.from_numpy(np.log1p(fused)).to(vectors)

    def p_values(self, fused_scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fused p-values (n,) of fused scores (n,)."""
        return self._fusion.p_values(fused_scores).values

    def _judgements(self, inputs: NDArray[Any], outputs: Mapping[str, AnalyzerOutput]) -> Iterator[Judgement]:
        scores = _scores(self._analyzers, [outputs])
        statistic = self._fusion.statistic(scores)
        fused = self._fusion.p_values(statistic)
        own = {name: self._fusion.own[name].p_values(values) for name, values in scores.items()}
        maps, shares = self._explain(inputs, outputs)
        for index in range(len(statistic)):
            opinions = tuple(
                Opinion(name, float(scores[name][index]), float(p.values[index]), bool(p.extrapolated[index]))
                for name, p in own.items()
            )
            yield Judgement(
                score=float(statistic[index]),
                p_value=float(fused.values[index]),
                extrapolated=bool(fused.extrapolated[index]),
                opinions=opinions,
                anomaly_map=None if maps is None else maps[index],
                contributions=() if shares is None else shares[index],
            )

    def _explain(
        self, inputs: NDArray[Any], outputs: Mapping[str, AnalyzerOutput]
    ) -> tuple[NDArray[np.uint8] | None, list[tuple[tuple[str, float], ...]] | None]:
        """Maps and contributions of a block; None where the modality or the analyzers give none."""
        patch_maps = {name: output.maps for name, output in outputs.items() if output.maps is not None}
        if patch_maps:
            ratios = [self._scales[name].ratio(_array(maps)[..., np.newaxis]) for name, maps in patch_maps.items()]
            return to_bytes(np.mean(ratios, axis=0).squeeze(-1)), None
        residuals = _residuals(self.preprocessor, inputs, outputs)
        if residuals is None:
            return None, None
        ratio = self._scales[RESIDUAL].ratio(residuals)
        names = self.preprocessor.spec.channels
        shares = [contributions(sample, names) for sample in ratio]
        return (to_bytes(ratio) if ratio.ndim == 3 else None), shares


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first CUDA device, else the CPU. Raises SettingsError if unusable."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f'Device {name!r} cannot be used ({reason}): set "auto" or "cpu".') from None
    return device


def _features(encoder: Encoder | None, inputs: NDArray[Any], device: torch.device) -> Features:
    if encoder is not None:
        return Features(encoder.encode(inputs).to(device), encoder.grid)
    vectors = torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32))
    return Features(vectors.to(device).flatten(1).unsqueeze(1))


def _fit_features(
    encoder: Encoder | None, inputs: NDArray[Any], device: torch.device, generator: torch.Generator
) -> Features:
    """Vectors to fit on: of each image a random part of its patches, so that memory does not grow with the images."""
    if encoder is None:
        return _features(None, inputs, device)
    quota = max(1, min(encoder.grid[0] * encoder.grid[1], MAX_FIT_VECTORS // len(inputs)))
    kept = []
    for block in _blocks(inputs, images=True):
        for patches in _features(encoder, block, device).vectors:
            kept.append(patches[torch.randperm(len(patches), generator=generator)[:quota].to(device)])
    return Features(torch.stack(kept), (1, quota))


def _outputs(
    encoder: Encoder | None, analyzers: Mapping[str, Analyzer], inputs: NDArray[Any], device: torch.device
) -> Iterator[tuple[NDArray[Any], dict[str, AnalyzerOutput]]]:
    """Blocks of the inputs, each with what every analyzer says of it."""
    for block in _blocks(inputs, images=encoder is not None):
        with torch.inference_mode(), one_thread() if encoder is None else nullcontext():
            features = _features(encoder, block, device)
            outputs = {name: analyzer.score(features) for name, analyzer in analyzers.items()}
        yield block, outputs


def _blocks(inputs: NDArray[Any], *, images: bool) -> Iterator[NDArray[Any]]:
    size = IMAGES_A_BLOCK if images else VECTORS_A_BLOCK
    for start in range(0, len(inputs), size):
        yield inputs[start : start + size]


def _scores(
    analyzers: Mapping[str, Analyzer], outputs: Sequence[Mapping[str, AnalyzerOutput]]
) -> dict[str, NDArray[np.float64]]:
    """Scores (n,) by analyzer, of all blocks."""
    empty = np.zeros(0)
    return {name: np.concatenate([empty, *(_array(block[name].scores) for block in outputs)]) for name in analyzers}


def _residuals(
    preprocessor: Preprocessor, inputs: NDArray[Any], outputs: Mapping[str, AnalyzerOutput]
) -> NDArray[np.float64] | None:
    """How far samples lie from what they would be were they normal: (n, features), or (n, length, channels) of windows.

    Windows are compared in their own units, rows as standardised. None where no analyzer reconstructs.
    """
    found = [output.reconstruction for output in outputs.values() if output.reconstruction is not None]
    if not found or not preprocessor.has_inverse:
        return None
    reconstruction = _array(found[0]).reshape(inputs.shape)
    if preprocessor.modality is Modality.TABULAR:
        return np.abs(inputs - reconstruction)
    distances: NDArray[np.float64] = np.abs(preprocessor.inverse(inputs) - preprocessor.inverse(reconstruction))
    return distances


def _fit_scales(
    preprocessor: Preprocessor, held_out: Sequence[tuple[NDArray[Any], Mapping[str, AnalyzerOutput]]]
) -> dict[str, Scale]:
    """The scale of each analyzer's maps on normal images, or that of the residuals of each channel."""
    values: dict[str, list[NDArray[np.float64]]] = {}
    for inputs, outputs in held_out:
        for name, output in outputs.items():
            if output.maps is not None:
                values.setdefault(name, []).append(_array(output.maps).reshape(-1, 1))
        residuals = _residuals(preprocessor, inputs, outputs)
        if residuals is not None:
            values.setdefault(RESIDUAL, []).append(residuals.reshape(-1, residuals.shape[-1]))
    return {name: Scale.fit(np.concatenate(parts)) for name, parts in values.items()}


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().double().numpy()


def _state_file(analyzer: str) -> str:
    return f"{FOLDER}analyzers/{analyzer}.safetensors"


def _part(progress: Progress, start: float, width: float, parts: int) -> Progress:
    """Progress of one of `parts` equal stages."""
    return lambda share: progress((start + width * share) / parts)
