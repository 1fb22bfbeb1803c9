"""Video encoder: appearance and motion of each patch of the last frame, whitened at each place.

A clip gives one vector per patch of 32 x 32 pixels: frozen features of its last frame, and their difference from the
mean of the earlier frames. A fixed camera shows different content at each place, so each place has its own mean and
whitening, as in PaDiM (Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection
and Localization", ICPR 2020, section 3.2); for few clips, the covariance of all places supports the estimate. The
squared length of a vector is then a Mahalanobis distance at its place, and one model serves all places.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cloud.methods.encoders.efficientnet import (
    DEEP_CHANNELS,
    DEEP_STRIDE,
    SHALLOW_CHANNELS,
    Backbone,
)
from shared.diffusion.training import Progress
from shared.errors import BundleError, DataError
from shared.preprocessing.video import MIN_CLIP_FRAMES

PATCH_PIXELS = 2 * DEEP_STRIDE
APPEARANCE_DIM, MOTION_DIM = 96, 32
FEATURES = SHALLOW_CHANNELS + DEEP_CHANNELS
BATCH_CLIPS = 8


class VideoEncoder(nn.Module):
    """Frozen network from clips of one size and length to patch vectors of appearance and motion."""

    def __init__(
        self,
        height: int,
        width: int,
        frames: int = MIN_CLIP_FRAMES,
        dims: tuple[int, int] = (APPEARANCE_DIM, MOTION_DIM),
        backbone: Backbone | None = None,
    ) -> None:
        super().__init__()
        if height % PATCH_PIXELS or width % PATCH_PIXELS or min(height, width) < PATCH_PIXELS:
            raise DataError(
                f"The video encoder needs multiples of {PATCH_PIXELS} pixels, not {height} x {width}: change "
                "video.height and video.width."
            )
        if frames < MIN_CLIP_FRAMES:
            raise DataError(f"A clip has {MIN_CLIP_FRAMES} frames or more, not {frames}: raise video.clip_frames.")
        if not all(0 < size <= FEATURES for size in dims):
            raise DataError(f"A patch has 1 to {FEATURES} values of appearance and of motion, not {dims}.")
        self.height, self.width, self.frames, self.dims = height, width, frames, dims
        self.dim = sum(dims)
        self.grid = (height // PATCH_PIXELS, width // PATCH_PIXELS)
        self.backbone = backbone if backbone is not None else Backbone()
        # A convolution with one group per place multiplies by a matrix per place, and engines run it in INT8.
        patches = self.grid[0] * self.grid[1]
        self.appearance = nn.Conv2d(patches * FEATURES, patches * dims[0], 1, groups=patches)
        self.motion = nn.Conv2d(patches * FEATURES, patches * dims[1], 1, groups=patches)
        self.eval().requires_grad_(False)

    def features(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Return appearance and motion (n, patches, 152) before whitening.

        `clips`: (n, frames, height, width, 3) uint8.
        """
        pixels = clips.reshape(-1, self.height, self.width, 3).permute(0, 3, 1, 2).float()
        shallow, deep = self.backbone(pixels)
        levels = torch.cat([F.avg_pool2d(shallow, 4), F.avg_pool2d(deep, 2)], dim=1)
        frames = levels.flatten(2).transpose(1, 2).reshape(-1, self.frames, self.grid[0] * self.grid[1], FEATURES)
        last = frames[:, -1]
        return last, last - frames[:, :-1].mean(dim=1)

    def whiten(self, appearance: Tensor, motion: Tensor) -> Tensor:
        """Return vectors (n, patches, dim) from the appearance and motion that `features` returns."""
        patches = self.grid[0] * self.grid[1]
        parts = [
            layer(features.reshape(-1, patches * FEATURES, 1, 1)).reshape(-1, patches, size)
            for layer, features, size in zip(
                (self.appearance, self.motion), (appearance, motion), self.dims, strict=True
            )
        ]
        return torch.cat(parts, dim=2)

    def forward(self, clips: Tensor) -> Tensor:
        """Return patch vectors (n, dim, rows, columns) of clips (n, frames, height, width, 3) uint8."""
        vectors = self.whiten(*self.features(clips))
        return vectors.transpose(1, 2).reshape(-1, self.dim, *self.grid)

    def encode(self, clips: NDArray[Any], progress: Progress | None = None) -> Tensor:
        """Return patch vectors (n, patches, dim) of clips, on the encoder's device.

        `clips`: (n, frames, height, width, 3) uint8. Raises DataError for clips of another shape.
        """
        shape = (self.frames, self.height, self.width, 3)
        if clips.shape[1:] != shape:
            raise DataError(f"Clips have the shape {clips.shape[1:]}, but the encoder needs {shape}.")
        device = self.motion.weight.device
        parts = [torch.zeros(0, self.grid[0] * self.grid[1], self.dim, device=device)]
        for start in range(0, len(clips), BATCH_CLIPS):
            parts.append(self.whiten(*self.features(torch.from_numpy(clips[start : start + BATCH_CLIPS]).to(device))))
            if progress is not None:
                progress(min(start + BATCH_CLIPS, len(clips)) / len(clips))
        return torch.cat(parts)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors to store."""
        size = torch.tensor([self.height, self.width, self.frames, *self.dims])
        return {"size": size, **{name: tensor.contiguous() for name, tensor in self.state_dict().items()}}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Return the encoder that `state` described. Raises BundleError for other tensors."""
        tensors = dict(state)
        try:
            height, width, frames, appearance, motion = (int(value) for value in tensors.pop("size"))
            encoder = cls(height, width, frames, (appearance, motion))
            encoder.load_state_dict(tensors)
        except (KeyError, ValueError, RuntimeError, DataError) as error:
            raise BundleError(f"Not the weights of a video encoder: {str(error).splitlines()[0]}") from None
        return encoder
