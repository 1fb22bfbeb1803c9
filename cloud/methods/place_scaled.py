"""Analyzer of images with scores standardised at each place; see `cloud.methods.pooling`."""

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

MAX_PATCHES = 120_000  # of whole normal images that the scales are fitted on
MIN_SAMPLES = 20  # even if they have more than MAX_PATCHES
BLOCK_PATCHES = 20_000
_FIT_SHARE = 0.9  # share of the progress
_STATE = "places."


class PlaceScaled:
    """Wrapper of an analyzer that standardises its maps at each place, and pools scores from these maps.

    The scale is fitted on the samples that the analyzer learned from. They have lower scores than new samples, equally
    at all places.
    """

    def __init__(self, inner: Analyzer, scale: PlaceScale | None = None):
        self.inner = inner
        self._scale = scale

    @property
    def name(self) -> str:
        """Name of the wrapped analyzer."""
        return self.inner.name

    def fit(self, features: Features, context: FitContext, progress: Progress | None = None) -> None:
        """Fit the wrapped analyzer, then the scale of each place on its scores of the same samples."""
        report = progress or (lambda share: None)
        self.inner.fit(features, context, lambda share: report(_FIT_SHARE * share))
        patches = features.vectors.shape[1]
        max_samples = max(MIN_SAMPLES, MAX_PATCHES // patches)
        generator = context.generator(f"{self.name}/places")
        chosen = features.at(
            torch.randperm(len(features), generator=generator)[:max_samples].to(features.vectors.device)
        )
        with torch.inference_mode():
            outputs = [self.inner.score(block) for block in chosen.blocks(max(1, BLOCK_PATCHES // patches))]
        self._scale = PlaceScale.fit(torch.cat([_maps(output).flatten(1) for output in outputs]))
        report(1.0)

    def score(self, features: Features) -> AnalyzerOutput:
        """Score samples in standard deviations above normal."""
        output = self.inner.score(features)
        maps = _maps(output)
        scaled = self._fitted().standardised(maps.flatten(1)).reshape(maps.shape)
        places = features.judged(scaled) if isinstance(features, PatchFeatures) else scaled
        return replace(output, scores=image_scores(places), maps=places)

    @property
    def corruption_head(self) -> CorruptionHead | None:
        """Network of the wrapped analyzer, if it has one."""
        return self.inner.corruption_head

    def deviations(self, vectors: Tensor) -> Tensor:
        """Return scores (n,) of patches (n, dim) in standard deviations above normal, for an average place."""
        scale = self._fitted()
        return (
            self.inner.score(VectorFeatures(vectors.unsqueeze(1))).scores - scale.mean.mean()
        ) / scale.deviation.mean()

    def state(self) -> dict[str, Tensor]:
        """Return the state of the wrapped analyzer and the scale."""
        scale = self._fitted()
        own = {f"{_STATE}mean": scale.mean, f"{_STATE}deviation": scale.deviation}
        return {**self.inner.state(), **cpu_state(own)}

    @classmethod
    def from_state(cls, kind: type[Analyzer], state: Mapping[str, Tensor]) -> Self:
        """Return the analyzer of that kind with this state."""
        inner = {name: value for name, value in state.items() if not name.startswith(_STATE)}
        return cls(kind.from_state(inner), PlaceScale(state[f"{_STATE}mean"], state[f"{_STATE}deviation"]))

    @staticmethod
    def holds(state: Mapping[str, Tensor]) -> bool:
        """Return whether `state` is that of a wrapped analyzer."""
        return f"{_STATE}mean" in state

    def to(self, device: torch.device) -> Self:
        """Move to a device, in place; return the analyzer."""
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
    """Analyzer that scores single patches without their place, as a teacher of a head for patches."""

    def deviations(self, vectors: Tensor) -> Tensor:
        """Return scores (n,) of patches (n, dim) in standard deviations above normal."""
        ...


def _maps(output: AnalyzerOutput) -> Tensor:
    if output.maps is None:
        raise ValueError("Only scores of images can be standardised by place; these have no map.")
    return output.maps
