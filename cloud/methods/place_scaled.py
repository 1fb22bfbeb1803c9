"""Any analyzer of images, with its scores standardised at each place; see `cloud.methods.pooling`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, Self, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from cloud.methods.base import Analyzer, AnalyzerOutput, cpu_state
from cloud.methods.features import Features, PatchFeatures, VectorFeatures
from cloud.methods.fit_context import FitContext
from cloud.methods.pooling import PlaceScale, image_scores
from shared.diffusion.local_corruption import CorruptionHead
from shared.diffusion.training import Progress

MAX_PATCHES = 120_000  # of normal images, in whole ones, that the places' scales are fitted on
MIN_SAMPLES = 20  # whatever the patches
BLOCK_PATCHES = 20_000
_FIT_SHARE = 0.9  # of the progress
_STATE = "places."


class PlaceScaled:
    """Another analyzer whose maps hold deviations above normal at each place, and whose scores are made from these.

    The normals it is fitted on set the scale. That they are known to the analyzer lowers all places alike.
    """

    def __init__(self, inner: Analyzer, scale: PlaceScale | None = None):
        self.inner = inner
        self._scale = scale

    @property
    def name(self) -> str:
        """The other analyzer's."""
        return self.inner.name

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Fit the other analyzer, then the scale of each place on its scores of the same samples."""
        report = progress or (lambda share: None)
        self.inner.fit(features, context, lambda share: report(_FIT_SHARE * share))
        patches = features.vectors.shape[1]
        most = max(MIN_SAMPLES, MAX_PATCHES // patches)
        generator = context.generator(f"{self.name}/places")
        chosen = features.at(torch.randperm(len(features), generator=generator)[:most].to(features.vectors.device))
        with torch.inference_mode():
            outputs = [self.inner.score(block) for block in chosen.blocks(max(1, BLOCK_PATCHES // patches))]
        self._scale = PlaceScale.fit(torch.cat([_maps(output).flatten(1) for output in outputs]))
        report(1.0)

    def score(self, features: Features) -> AnalyzerOutput:
        """Deviations above normal."""
        output = self.inner.score(features)
        maps = _maps(output)
        scaled = self._fitted().standardised(maps.flatten(1)).reshape(maps.shape)
        places = features.judged(scaled) if isinstance(features, PatchFeatures) else scaled
        return replace(output, scores=image_scores(places), maps=places)

    @property
    def corruption_head(self) -> CorruptionHead | None:
        """Network of the other analyzer, if it has one."""
        return self.inner.corruption_head

    def deviations(self, vectors: Tensor) -> Tensor:
        """(n,) how far above normal patches (n, dim) score, in deviations, wherever they may lie."""
        scale = self._fitted()
        return (
            self.inner.score(VectorFeatures(vectors.unsqueeze(1))).scores - scale.mean.mean()
        ) / scale.deviation.mean()

    def state(self) -> dict[str, Tensor]:
        """The other analyzer's state and the scale."""
        scale = self._fitted()
        own = {f"{_STATE}mean": scale.mean, f"{_STATE}deviation": scale.deviation}
        return {**self.inner.state(), **cpu_state(own)}

    @classmethod
    def from_state(cls, kind: type[Analyzer], state: Mapping[str, Tensor]) -> Self:
        """The analyzer of that kind with this state."""
        inner = {name: value for name, value in state.items() if not name.startswith(_STATE)}
        return cls(kind.from_state(inner), PlaceScale(state[f"{_STATE}mean"], state[f"{_STATE}deviation"]))

    @staticmethod
    def holds(state: Mapping[str, Tensor]) -> bool:
        """Whether `state` is that of a placed analyzer."""
        return f"{_STATE}mean" in state

    def to(self, device: torch.device) -> Self:
        """Move to a device."""
        self.inner.to(device)
        scale = self._fitted()
        self._scale = PlaceScale(scale.mean.to(device), scale.deviation.to(device))
        return self

    def _fitted(self) -> PlaceScale:
        if self._scale is None:
            raise RuntimeError(f"{self.name} is not fitted: call fit() first.")
        return self._scale


AnyAnalyzer: TypeAlias = Analyzer | PlaceScaled


@runtime_checkable
class PatchScorer(Protocol):
    """An analyzer that scores single patches wherever they lie, so that it can teach a head for patches."""

    def deviations(self, vectors: Tensor) -> Tensor:
        """Return how far above normal patches (n, dim) score, in deviations: (n,)."""
        ...


def _maps(output: AnalyzerOutput) -> Tensor:
    if output.maps is None:
        raise ValueError("Places are standardised of images only: there is no map.")
    return output.maps
