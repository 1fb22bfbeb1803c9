"""The training side of a modality: port and the defaults that modalities share."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.methods import Need
from cloud.methods.encoders import Encoder, PatchEncoder
from cloud.serving.encoding import Samples
from cloud.training.data import TrainingData
from cloud.training.samples import Split
from cloud.training.screeners import ScreenerModule, SeriesViews, VectorScreener
from cloud.training.settings import DataSettings, TrainingSettings
from cloud.training.teachers import fused_teacher
from shared.bundle import InputSpec
from shared.diffusion.distillation import DistillationSettings, Perturbation, Teacher
from shared.diffusion.local_corruption import CorruptedPatches
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.diffusion.training import Progress, one_thread
from shared.modality import Modality
from shared.preprocessing import Preprocessor

if TYPE_CHECKING:
    from cloud.serving.analysis import Analysis

CORE_SHARE, RANGE_FACTOR = 0.99, 2.0


@dataclass(frozen=True, slots=True)
class GraphProfile:
    """How the graphs of a modality are built, quantised and ranked.

    Attributes:
        preferred_engine: Engine that devices use unless they measure otherwise.
        first_in_float: Number of first layers that stay in float in any case. They are few of the operations, and
            every later layer works on their outputs.
        quantisation_batch_size: Graph inputs per batch while the INT8 ranges are set.
        ranking_size: From the shape of one graph input to the number of inputs to rank layers by.
    """

    preferred_engine: str
    first_in_float: int
    quantisation_batch_size: int
    ranking_size: Callable[[tuple[int, ...]], int]


class TrainingModality(ABC):
    """A modality as a training run sees it.

    Attributes:
        name: The modality.
        hidden: Hidden widths of the head, before they are narrowed to the bound on its parameters.
        distillation: How the head is distilled unless the settings say otherwise.
        graphs: How the graphs are built.
        folds: Number of folds in which held-out samples are scored, and learned from, by quick methods; 0: never
            learned from. See `cloud.training.fitting`.
        is_ordered: Whether neighbouring samples overlap, so that calibration must not shuffle them.
        has_time: Whether the first axis of a sample is time.
        scales_places: Whether patch scores are standardised at each place.
        worth_exponent: Power of the AUROC above chance, on `weighing_copies`, that fused methods are weighted by.
        sample_word: Plural of the word for one sample, for people.
        can_trim: Whether `data.trim_share` can leave out the least likely samples.
        untaught: Needs of analyzers that the teacher of the head cannot serve, since it has single vectors only.
    """

    name: ClassVar[Modality]
    hidden: ClassVar[tuple[int, ...]]
    distillation: ClassVar[DistillationSettings]
    graphs: ClassVar[GraphProfile]
    folds: ClassVar[int] = 0
    is_ordered: ClassVar[bool] = False
    has_time: ClassVar[bool] = False
    scales_places: ClassVar[bool] = False
    worth_exponent: ClassVar[float] = 1.0
    sample_word: ClassVar[str] = "samples"
    can_trim: ClassVar[bool] = False
    untaught: ClassVar[frozenset[Need]] = frozenset()

    @abstractmethod
    def find(self, path: Path, settings: DataSettings, *, to_judge: bool) -> TrainingData:
        """Read the data at `path`, or find its files. Raises DataError for data that cannot be used."""

    @abstractmethod
    def split(
        self,
        data: TrainingData,
        settings: TrainingSettings,
        generator: np.random.Generator,
        progress: Progress | None,
    ) -> Split:
        """Read the samples and split them into training, held-out and test part.

        Raises DataError if there are too few normal ones.
        """

    def form_settings(self, spec: InputSpec) -> dict[str, dict[str, int]]:
        """Return the settings that give new samples the form of `spec`: the sizes that a training run would choose."""
        return {}

    @abstractmethod
    def encode(
        self, train: NDArray[Any], settings: TrainingSettings, generator: torch.Generator, progress: Progress
    ) -> tuple[PatchEncoder | None, Tensor]:
        """Return the fitted encoder, None without one, and the normal vectors (n, dim) to distil the head on."""

    @abstractmethod
    def teacher(self, analysis: "Analysis") -> Teacher | None:
        """Return the function that scores perturbed vectors for the head; None: DTE-NP among the normal vectors."""

    @abstractmethod
    def quantisation_inputs(
        self, train: NDArray[Any], head: TimeEstimationHead, settings: TrainingSettings
    ) -> NDArray[Any]:
        """Return the normal graph inputs (n, ...) that set the INT8 ranges."""

    @abstractmethod
    def screener(
        self,
        encoder: PatchEncoder | None,
        head: TimeEstimationHead,
        analysis: "Analysis",
        train: NDArray[Any],
        quantisation: NDArray[Any],
        held_out: NDArray[Any],
    ) -> ScreenerModule:
        """Return the whole screener: encoder, head and score.

        `train`, `quantisation` and `held_out` are graph inputs (n, ...) of normal samples.
        """

    def corrupted_patches(
        self, encoder: Encoder | None, inputs: NDArray[Any], seed: int, effort: float, progress: Progress
    ) -> CorruptedPatches | None:
        """Return patches of corrupted copies of normal graph inputs (n, ...), for analyzers; None without copies.

        `effort`: share of the usual number of pixels in copies, at most.
        """
        return None

    def weighing_copies(self, encoder: Encoder | None, held_out: Samples, seed: int) -> Samples | None:
        """Return changed copies of held-out normal samples, to weight the fused methods by; None: equal weights."""
        return None

    @abstractmethod
    def corrupted_copies(self, normal: NDArray[Any], spec: InputSpec, seed: int) -> dict[str, NDArray[Any]]:
        """Return standard corrupted copies (n, ...) by kind of normal samples, for the judgement of a bundle."""

    def statistics(self, samples: NDArray[Any], spec: InputSpec) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Return names and values (n, names) that describe samples, to find drift: by default means of each channel."""
        values = np.asarray(samples, dtype=np.float64).reshape(len(samples), -1, len(spec.channels))
        observed = np.isfinite(values)
        counts = observed.sum(axis=1)
        means = np.where(observed, values, 0.0).sum(axis=1) / np.maximum(counts, 1)
        return spec.channels, np.where(counts > 0, means, np.nan)

    def perturbation(self, preprocessor: Preprocessor, train: NDArray[Any]) -> Perturbation | None:
        """Return a maker of perturbed graph inputs from samples; None: the graph inputs alone are perturbed."""
        return None

    def input_stage(self, preprocessor: Preprocessor) -> SeriesViews | None:
        """Return the module that makes graph inputs from engine inputs; None where they are the same."""
        return None

    def normal_examples(self, held_out: NDArray[Any], settings: TrainingSettings) -> dict[str, NDArray[Any]]:
        """Return held-out pictures for people as arrays by name, from engine inputs (n, ...); none by default."""
        return {}

    def max_scored(self, count: int) -> int:
        """Return how many of `count` labelled samples the analyzers score for the report."""
        return count

    def threads(self) -> AbstractContextManager[None]:
        """Return the context in which training computes: one thread for vectors, all where an encoder uses them."""
        return nullcontext()


class TrainingVectors(TrainingModality):
    """Rows and windows: each sample is one vector, and the head sees it as it is."""

    hidden = (256, 384, 256)
    graphs = GraphProfile(
        # Measured: ONNX Runtime is fastest for small multilayer perceptrons.
        preferred_engine="onnxruntime",
        first_in_float=1,
        quantisation_batch_size=64,
        ranking_size=lambda shape: 512,
    )
    can_trim = True

    def encode(
        self, train: NDArray[Any], settings: TrainingSettings, generator: torch.Generator, progress: Progress
    ) -> tuple[PatchEncoder | None, Tensor]:
        """Return no encoder, and the graph inputs."""
        return None, torch.from_numpy(train)

    def teacher(self, analysis: "Analysis") -> Teacher | None:
        """Return the fused score of the analyzers."""
        return fused_teacher(analysis)

    def quantisation_inputs(
        self, train: NDArray[Any], head: TimeEstimationHead, settings: TrainingSettings
    ) -> NDArray[Any]:
        """Return the most normal of the training vectors, doubled.

        A range that holds the rarest normals spends its steps on them, while vectors that saturate beyond this range
        still score by how far they lie outside (see `VectorScreener`). Measured on telemetry with outliers: rank
        correlation with FP32 0.993 to 0.998 by this choice, 0.90 to 0.96 by all normals or by perturbed ones.
        """
        with torch.inference_mode():
            scores = head(torch.from_numpy(train)).numpy()
        generator = np.random.default_rng(settings.seed)
        core = np.argsort(scores, kind="stable")[: max(1, int(len(scores) * CORE_SHARE))]
        chosen = np.sort(generator.permutation(core)[: settings.quantisation.samples])
        widened: NDArray[Any] = train[chosen] * train.dtype.type(RANGE_FACTOR)
        return widened

    def screener(
        self,
        encoder: PatchEncoder | None,
        head: TimeEstimationHead,
        analysis: "Analysis",
        train: NDArray[Any],
        quantisation: NDArray[Any],
        held_out: NDArray[Any],
    ) -> ScreenerModule:
        """Return the head with the box of normal vectors, beyond which the score grows with the distance."""
        return VectorScreener.within(head, quantisation, held_out)

    def threads(self) -> AbstractContextManager[None]:
        """Return one thread: networks this small wait for one another on two."""
        return one_thread()


MAX_RANKING_PIXELS = 8 * 512 * 512  # bounds the cost of ranking: one small batch per layer
MIN_RANKING_IMAGES, MAX_RANKING_IMAGES = 2, 8


def _ranking_images(shape: tuple[int, ...]) -> int:
    pixels = int(np.prod(shape[:-1]))
    return max(MIN_RANKING_IMAGES, min(MAX_RANKING_IMAGES, MAX_RANKING_PIXELS // pixels))


class EncodedModality(TrainingModality):
    """Images and clips: an encoder turns each sample into patches, and the head sees single patches."""

    hidden = (256, 256)
    distillation = DistillationSettings(steps=3000, batch_size=512, perturbed=60_000, max_seconds=90.0)
    graphs = GraphProfile(
        # Measured: OpenVINO is fastest for convolutional networks.
        preferred_engine="openvino",
        first_in_float=3,
        quantisation_batch_size=1,
        ranking_size=_ranking_images,
    )
    max_scored_samples: ClassVar[int] = 100
    max_quantisation_pixels: ClassVar[int] = 64 * 640 * 640
    min_quantisation_images: ClassVar[int] = 10

    @abstractmethod
    def fit_encoder(
        self, train: NDArray[Any], settings: TrainingSettings, generator: torch.Generator, progress: Progress
    ) -> tuple[PatchEncoder, Tensor]:
        """Return the encoder fitted on normal samples, and patch vectors (patches, dim) of them."""

    def encode(
        self, train: NDArray[Any], settings: TrainingSettings, generator: torch.Generator, progress: Progress
    ) -> tuple[PatchEncoder | None, Tensor]:
        """Return the encoder, and patches drawn at random from those of the training samples."""
        encoder, patches = self.fit_encoder(train, settings, generator, progress)
        chosen = torch.randperm(len(patches), generator=generator)[: settings.image.patches]
        return encoder, patches[chosen].clone()

    def quantisation_inputs(
        self, train: NDArray[Any], head: TimeEstimationHead, settings: TrainingSettings
    ) -> NDArray[Any]:
        """Return training samples as they are; fewer where they are large."""
        pixels = int(np.prod(train.shape[-3:-1]))
        bound = max(self.min_quantisation_images, self.max_quantisation_pixels // pixels)
        count = min(settings.quantisation.images, bound)
        generator = np.random.default_rng(settings.seed)
        chosen: NDArray[Any] = train[np.sort(generator.permutation(len(train))[:count])]
        return chosen

    def max_scored(self, count: int) -> int:
        """Return at most `max_scored_samples`: each sample is hundreds of vectors."""
        return min(count, self.max_scored_samples)
