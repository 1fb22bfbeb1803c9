"""Samplers that make images or clips from the frames of a camera or video file.

A clip is `window_length` frames, `frame_interval_s` apart, at the size of the graph's input. A new clip ends every half
interval. Resizing before the clip is stored bounds memory and upload, and the device sends the pixels that it screened.
"""

from collections import deque
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.settings.sources import CameraSettings
from edge.sources.frames import FrameGate, ready_frame
from shared.bundle import InputSpec
from shared.modality import Modality
from shared.preprocessing.video import graph_frame
from shared.videos import clip_stride, frame_step

MAX_DRIFT = 0.5  # share of the frame interval: maximum distance of a live frame from its place in the clip


class FrameConverter(Protocol):
    """Converter of a sequence of frames to samples."""

    modality: Modality
    gate: FrameGate
    counts_skipped: bool  # a frame that gives no sample counts as skipped

    @property
    def min_frames(self) -> int:
        """Frames that a file must hold to give a sample."""
        ...

    def restart(self, frames_per_second: float = 0.0) -> None:
        """Forget all frames, for a new connection or the start of a file. The rate is 0 for a live stream."""
        ...

    def wants(self, number: int) -> bool:
        """Return whether a frame of a file is needed at all; others need not be converted to pixels."""
        ...

    def add(self, pixels: NDArray[np.uint8], number: int, at_s: float, *, is_due: bool) -> NDArray[np.uint8] | None:
        """Return the sample that ends with a frame (height, width, 3), or None.

        `at_s`: seconds on the clock of the stream. `is_due`: whether the source's rate allows another sample now.
        """
        ...


class FrameSampler:
    """Sampler that returns each frame that passes stride and motion gate as an image."""

    modality = Modality.IMAGE
    counts_skipped = True
    min_frames = 1

    def __init__(self, settings: CameraSettings) -> None:
        self._settings, self.gate = settings, FrameGate(settings)

    def restart(self, frames_per_second: float = 0.0) -> None:
        """See `Sampler.restart`."""
        self.gate.forget()

    def wants(self, number: int) -> bool:
        """See `Sampler.wants`."""
        return self.gate.passes_stride(number)

    def add(self, pixels: NDArray[np.uint8], number: int, at_s: float, *, is_due: bool) -> NDArray[np.uint8] | None:
        """See `Sampler.add`."""
        if not (self.gate.passes_stride(number) and is_due and self.gate.passes_motion(pixels, at_s)):
            return None
        return ready_frame(pixels, self._settings)


class ClipSampler:
    """Sampler that returns clips (frames, height, width, 3) at the size of the graph.

    Frames of a file are selected by number, exactly as in training. Frames of a live stream are selected by time: one
    frame is kept each half interval, and a clip needs all its frames within MAX_DRIFT of their places. Every
    `frame_stride`-th clip is returned if its last frame passes the motion gate.
    """

    modality = Modality.VIDEO
    counts_skipped = False

    def __init__(self, settings: CameraSettings, spec: InputSpec) -> None:
        self._settings, self._spec, self.gate = settings, spec, FrameGate(settings)
        self._step = self._stride = 0
        self._held: deque[tuple[float, NDArray[np.uint8]]] = deque()
        self.restart()

    @property
    def min_frames(self) -> int:
        """See `Sampler.min_frames`."""
        return self._step * (self._spec.window_length - 1) + 1

    def restart(self, frames_per_second: float = 0.0) -> None:
        """See `Sampler.restart`."""
        self.gate.forget()
        self._held.clear()
        self._next_s, self._clips = 0.0, 0
        self._step = frame_step(frames_per_second, self._spec.frame_interval_s) if frames_per_second > 0 else 0
        self._stride = clip_stride(self._step)

    def wants(self, number: int) -> bool:
        """See `Sampler.wants`."""
        last = self._step * (self._spec.window_length - 1)
        ends = (number + self._step * later - last for later in range(self._spec.window_length))
        return any(end >= 0 and end % self._stride == 0 for end in ends)

    def add(self, pixels: NDArray[np.uint8], number: int, at_s: float, *, is_due: bool) -> NDArray[np.uint8] | None:
        """See `Sampler.add`."""
        spec, is_live = self._spec, self._step == 0
        place, interval = (at_s, spec.frame_interval_s) if is_live else (float(number), float(self._step))
        if is_live and self._held and place < self._next_s:
            return None
        if is_live:  # the next place on a grid of half intervals
            self._next_s = max(self._next_s + interval / 2, place) if self._held else place + interval / 2
        frame = graph_frame(ready_frame(pixels, self._settings), spec)
        self._held.append((place, frame))
        span = interval * (spec.window_length - 1)
        while self._held[0][0] < place - span - interval * MAX_DRIFT:
            self._held.popleft()
        if not is_live and (number - span < 0 or (number - span) % self._stride):
            return None
        frames = self._frames_at([place - span + interval * index for index in range(spec.window_length)], interval)
        if frames is None:
            return None
        self._clips += 1
        if not (self.gate.passes_stride(self._clips - 1) and is_due and self.gate.passes_motion(pixels, at_s)):
            return None
        return np.stack(frames)

    def _frames_at(self, places: list[float], interval: float) -> list[NDArray[np.uint8]] | None:
        """Return the held frames nearest to the places, None if one is missing."""
        found: list[NDArray[np.uint8]] = []
        for wanted in places:
            place, frame = min(self._held, key=lambda held: abs(held[0] - wanted))
            if abs(place - wanted) > interval * MAX_DRIFT:
                return None
            found.append(frame)
        return found
