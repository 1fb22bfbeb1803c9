"""The serving side of a modality: port and defaults."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.bundle import Bundle
from shared.modality import Modality
from shared.preprocessing import Preprocessor, SeriesWindows

if TYPE_CHECKING:  # the annotations must not cost the console an import of PyTorch
    import torch
    from torch import Tensor

    from cloud.methods import AnalyzerOutput, Features
    from cloud.methods.encoders import Encoder, PatchEncoder


class View(StrEnum):
    """How a person looks at one sample."""

    TABLE = "table"
    TRACES = "traces"
    PICTURE = "picture"
    CLIP = "clip"


class PreparedSamples(Protocol):
    """Samples as an explanation sees them. `inputs`: (n, ...) graph inputs; `windows`: readings of a series."""

    @property
    def preprocessor(self) -> Preprocessor:
        """Preprocessing that made the inputs."""
        ...

    @property
    def inputs(self) -> NDArray[Any]:
        """Graph inputs (n, ...)."""
        ...

    @property
    def windows(self) -> SeriesWindows | None:
        """Standardised windows, for a series."""
        ...

    def known_patches(self, grid: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Return the patches that can be judged (n, rows, columns); None: all of them."""
        ...


class CloudModality(ABC):
    """A modality as the service, the console and the evaluation see it.

    Attributes:
        name: The modality.
        noun: Word for one sample.
        upload_noun: Word for what an upload of training data holds of it; empty: `noun`.
        view: How the console shows a sample.
        source_kind: Kind of the edge source that replays files of it.
        default_methods: Analyzers whose opinions make the verdict unless a training run names others.
        has_encoder: Whether an encoder turns a sample into patches; without one the analyzers see vectors.
        has_value_map: Whether the deviations of single values form a map (a window), not only shares (a row).
        has_frames: Whether a sample is a clip, whose frames are judged one by one as well.
        takes_new_heads: Whether a bundle holds the reference samples to build a new head into it, as a federated round
            needs.
        splits_in_time: Whether stored samples are held out by time, the newest ones, and not at random.
        store_refusal: Why stored samples cannot be trained on; empty where they can.
        chunk_samples: Samples to analyse at a time when many are at hand; bounds the memory.
    """

    name: ClassVar[Modality]
    noun: ClassVar[str]
    view: ClassVar[View]
    upload_noun: ClassVar[str] = ""
    source_kind: ClassVar[str]
    default_methods: ClassVar[tuple[str, ...]]
    has_encoder: ClassVar[bool] = False
    has_value_map: ClassVar[bool] = False
    has_frames: ClassVar[bool] = False
    takes_new_heads: ClassVar[bool] = False
    splits_in_time: ClassVar[bool] = False
    store_refusal: ClassVar[str] = ""
    chunk_samples: ClassVar[int] = 4096

    def load_encoder(self, bundle: Bundle, device: str = "cpu") -> "PatchEncoder | None":
        """Return the encoder of a bundle on `device`; None without one. Raises BundleError if it is damaged."""
        return None

    @abstractmethod
    def features(self, samples: PreparedSamples, encoder: "Encoder | None", device: "torch.device") -> "Features":
        """Return the features of all samples, on `device`."""

    def fit_features(self, vectors: "Tensor", encoder: "Encoder") -> "Features":
        """Return the features to fit on, of encoded samples (n, patches, dim)."""
        from cloud.methods import PatchFeatures

        return PatchFeatures(vectors, grid=encoder.grid, pool=self.pooling())

    def pooling(self) -> "Callable[[Tensor], Tensor]":
        """Return the function from patch scores (n, rows, columns) to sample scores (n,)."""
        from cloud.methods.pooling import image_scores

        return image_scores

    def value_deviations(
        self, samples: PreparedSamples, outputs: "Mapping[str, AnalyzerOutput]"
    ) -> NDArray[np.float64] | None:
        """Return how far each value of a sample is from normal.

        Shape (n, features) for rows, (n, length, channels) for windows; 0 for a missing value. None where the modality
        or the analyzers' `outputs` give no such figure.
        """
        return None


class VectorModality(CloudModality):
    """Rows and windows: a graph input is one vector, which the analyzers see as it is."""

    @abstractmethod
    def vector_features(self, inputs: NDArray[Any], preprocessor: Preprocessor, device: "torch.device") -> "Features":
        """Return the features of graph inputs (n, width) alone, on `device`."""
