"""Scores of a clip's frames: how much each of them contributes to the clip's verdict."""

import numpy as np
from numpy.typing import NDArray

from cloud.serving.explanations import Shares


def clips_of_earlier_frames(clips: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return clips (n * (frames - 1), frames, height, width, 3) that end with each frame but the last of `clips`.

    A clip is judged by its last frame and the change up to it. A clip that ends with an earlier frame has fewer frames
    before it: its first frame is repeated, as if nothing had moved before.
    """
    frames = clips.shape[1]
    ends = np.arange(frames - 1)
    places = np.maximum(ends[:, np.newaxis] + np.arange(1 - frames, 1), 0)  # (frames - 1, frames)
    return np.ascontiguousarray(clips[:, places].reshape(-1, *clips.shape[1:]))


def frame_shares(p_values: NDArray[np.float64]) -> list[Shares]:
    """Return the share of each frame in the surprise of its clip, from p-values (n, frames).

    The surprise of a frame is -log of its p-value. Shares sum to 1; they are equal where no frame is a surprise.
    """
    surprises = np.abs(np.log(np.clip(p_values, np.finfo(np.float64).tiny, 1.0)))  # 0, not -0, at 1
    totals = surprises.sum(axis=1, keepdims=True)
    equal = np.full_like(surprises, 1.0 / surprises.shape[1])
    shares = np.divide(surprises, totals, out=equal, where=totals > 0)
    return [tuple((f"frame {number}", float(share)) for number, share in enumerate(row, 1)) for row in shares]
