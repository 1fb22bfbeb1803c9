"""Views of windows (see `shared.preprocessing.series`) as a module, the first part of a series artefact."""

from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from shared.preprocessing import ModePreprocessor, Preprocessor, SeriesPreprocessor
from shared.preprocessing.base import LINEAR_RANGE, MAX_COMPRESSED
from shared.preprocessing.conditional_gaussian import LIMIT_WEIGHT
from shared.preprocessing.series import VIEW_RANGE
from shared.preprocessing.stillness import FLOOR, MIN_PAIRS


class SeriesViews(nn.Module):
    """Conversion of engine inputs (batch, width) to graph inputs (batch, dim) in float32.

    If no value may be missing, the two products of a surprise are merged into one. Sizes are read when the views are
    made, because a trace would fix those that `forward` reads.
    """

    output_names = ("graph_inputs",)
    mean: Tensor
    scale: Tensor
    centre: Tensor
    components: Tensor
    deviation: Tensor
    residual: Tensor
    surprise: Tensor
    limits: Tensor
    members: Tensor
    precision: Tensor
    factors: Tensor
    whitening: Tensor
    counts: Tensor
    membership: Tensor
    same_channel: Tensor
    still: Tensor

    def __init__(self, preprocessor: SeriesPreprocessor, modes: int = 0) -> None:
        """Copy the parameters of `preprocessor`. `modes`: number of mode columns, which pass unchanged."""
        super().__init__()
        length = len(preprocessor.gaussian.centre)
        views, gaussian = preprocessor.views, preprocessor.gaussian
        self.values, self.modes, self.missing = gaussian.centre.size, modes, preprocessor.spec.missing
        self.length, self.channels = length, len(views.mean)
        self.groups, self.group_size = gaussian.factors.shape[:2]
        arrays = {
            "mean": np.tile(views.mean, length),
            "scale": np.tile(views.scale, length),
            "centre": gaussian.centre.reshape(-1),
            "components": views.components.T,
            "deviation": views.deviation,
            "residual": views.residual,
            "surprise": views.surprise,
            "limits": gaussian.limits,
            "still": views.still,
        }
        # Sums over the members of a group as a product: OpenVINO 2026.4.1 gets them wrong as a sum over the last axis
        # of a reshaped product, followed by a division and a bound.
        arrays["membership"] = np.repeat(np.eye(self.groups), self.group_size, axis=0)
        arrays["same_channel"] = np.tile(np.eye(len(views.mean)), (max(length - 1, 0), 1))
        members = gaussian.members.reshape(-1)  # the number of values stands for padding
        if self.missing:
            padded = np.concatenate([gaussian.precision, np.zeros((self.values, 1))], axis=1)
            arrays |= {"precision": padded[:, members], "factors": gaussian.factors}
            self.register_buffer("members", torch.from_numpy(members))
        else:
            arrays |= {"whitening": gaussian.whitening, "counts": (gaussian.members < self.values).sum(axis=1)}
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)))
        self.eval().requires_grad_(False)

    @classmethod
    def of(cls, preprocessor: Preprocessor) -> Self | None:
        """Return the views of a preprocessing; None if engine inputs are graph inputs."""
        if isinstance(preprocessor, ModePreprocessor) and isinstance(preprocessor.inner, SeriesPreprocessor):
            return cls(preprocessor.inner, len(preprocessor.spec.modes))
        return cls(preprocessor) if isinstance(preprocessor, SeriesPreprocessor) else None

    @property
    def width(self) -> int:
        """Number of columns of the engine inputs."""
        return self.values * (2 if self.missing else 1) + self.modes

    def forward(self, input: Tensor) -> Tensor:
        """Return graph inputs (batch, dim) of engine inputs (batch, width)."""
        values = input[:, : self.values]
        standard = values if self.missing else _compress((values - self.mean) / self.scale, LINEAR_RANGE)
        flat = standard - self.centre
        scores = flat @ self.components
        outside = flat - scores @ self.components.T  # the theorem of Pythagoras loses precision in float32
        # A product with ones, because the last bit of ONNX Runtime's sum depends on the row's place in the batch.
        squared = outside.square() @ outside.new_ones(self.values, 1)
        distance = (squared.sqrt() - self.residual[0]) / self.residual[1]
        squares = self._masked_squares(flat, input) if self.missing else self._squares(flat)
        surprises = torch.log1p(LIMIT_WEIGHT * squares / self.limits) + self._stillness(standard, input)
        surprises = (surprises - self.surprise[0]) / self.surprise[1]
        views = _compress(torch.cat([scores / self.deviation, distance, surprises], dim=1), VIEW_RANGE)
        return torch.cat([views, input[:, self.width - self.modes :]], dim=1) if self.modes else views

    def example(self) -> Tensor:
        """Return two engine inputs, for the export."""
        return torch.zeros(2, self.width)

    def _stillness(self, standard: Tensor, input: Tensor) -> Tensor:
        """Return the stillness (batch, groups) of standardised readings; see `shared.preprocessing.stillness`."""
        channels, length = self.channels, self.length
        if length <= MIN_PAIRS:
            return torch.zeros_like(standard[:, : self.groups])
        # Differences of rows by slices, and sums by a product with ones: sums over a middle axis differ by engine.
        squares = (standard[:, channels:] - standard[:, :-channels]).square()
        if self.missing:
            observed = input[:, self.values : 2 * self.values]
            pairs = observed[:, channels:] * observed[:, :-channels]
            counts = pairs @ self.same_channel
            total = (squares * pairs) @ self.same_channel
        else:
            total = squares @ self.same_channel
            counts = torch.full_like(total, float(length - 1))
        mean, unit, limit = self.still
        z = (mean - torch.log(total / counts.clamp(min=1.0) + FLOOR)) / unit * (counts / (length - 1)).sqrt()
        still = torch.log1p((z - limit).clamp(min=0.0)) * (counts > MIN_PAIRS - 0.5).to(z.dtype)
        width = self.group_size // length
        padded = torch.nn.functional.pad(still, (0, self.groups * width - channels))
        return padded.reshape(-1, self.groups, width).amax(dim=2) if width > 1 else padded

    def _squares(self, flat: Tensor) -> Tensor:
        return (flat @ self.whitening).square() @ self.membership / self.counts

    def _masked_squares(self, flat: Tensor, input: Tensor) -> Tensor:
        observed = input[:, self.values : 2 * self.values]
        padded = torch.cat([observed, torch.zeros_like(observed[:, :1])], dim=1)
        counts = padded[:, self.members]
        pulls = ((flat @ self.precision) * counts).reshape(-1, self.groups, self.group_size)
        whitened = (
            torch.matmul(pulls.transpose(0, 1), self.factors).transpose(0, 1).reshape(-1, self.groups * self.group_size)
        )
        return whitened.square() @ self.membership / (counts @ self.membership).clamp(min=1.0)


class SeriesScreener(nn.Module):
    """Complete screener of windows, from engine inputs (batch, width) to scores (batch,)."""

    output_names = ("score",)

    def __init__(self, views: SeriesViews, screener: nn.Module) -> None:
        super().__init__()
        self.views, self.screener = views, screener

    def forward(self, input: Tensor) -> Tensor:
        """Return scores (batch,) of engine inputs."""
        scores: Tensor = self.screener(self.views(input))
        return scores


def _compress(z: Tensor, linear_range: float) -> Tensor:
    """Return z compressed as in `shared.preprocessing.base.compress`."""
    beyond = torch.log(z.abs().clamp(min=linear_range) / linear_range)
    return z.clamp(-linear_range, linear_range) + (linear_range * beyond).clamp(max=MAX_COMPRESSED) * z.sign()
