"""Images or clips from a camera's stream or a video file, decoded by FFmpeg through PyAV.

A thread of its own reads a live stream at the camera's pace. The newest samples wait for the screener; older ones are
skipped and counted, so the picture is never old. A stream that ends, fails or stalls is opened again with exponential
back-off. A file is read as fast as it is screened, or at the rate that is set.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.settings.sources import CameraSettings
from edge.sources.base import Pacer
from edge.sources.clips import FrameConverter
from edge.sources.health import HealthRecord, SourceHealth
from shared.backoff import Backoff
from shared.errors import DataError, UnreadableInputError
from shared.logs import EventLog
from shared.samples import SampleBatch
from shared.texts import moment_text, without_secrets
from shared.videos import DEFAULT_FRAMES_PER_SECOND, pyav

FIRST_WAIT_S = 0.5
STABLE_AFTER_S = 30.0  # a connection that lasted this long resets the back-off
WAKE_S = 0.2
MAX_CONSECUTIVE_DAMAGED = 500  # packets
_RTSP_DEFAULTS = {"rtsp_transport": "tcp"}  # over UDP, losses show as damaged pictures

log = EventLog("camera")


@dataclass(frozen=True, slots=True)
class CameraSample:
    """An image or clip. `number`: of its last frame in the file or connection, from 0."""

    values: NDArray[np.uint8]
    captured_at_s: float
    number: int


class _NewestSamples:
    """Hands the newest samples of a live stream from the reading thread to the screening one.

    `over` is set to end the reading thread.
    """

    def __init__(self, max_samples: int) -> None:
        self._newest: deque[CameraSample] = deque(maxlen=max_samples)
        self._arrived, self.over = threading.Condition(), threading.Event()

    def put(self, sample: CameraSample) -> bool:
        """Add a sample; return whether it replaced an older one."""
        with self._arrived:
            full = len(self._newest) == self._newest.maxlen
            self._newest.append(sample)
            self._arrived.notify()
            return full

    def take(self) -> list[CameraSample]:
        """Return all waiting samples; wait at most WAKE_S for the first."""
        with self._arrived:
            if not self._newest:
                self._arrived.wait(WAKE_S)
            samples = list(self._newest)
            self._newest.clear()
            return samples


class CameraSource:
    """Source of the images or clips that `sampler` makes of the frames of a camera or video file."""

    def __init__(self, settings: CameraSettings, sampler: FrameConverter, pacer: Pacer) -> None:
        self.source_id, self.modality = settings.id, sampler.modality
        self._settings, self._pacer = settings, pacer
        self._health = HealthRecord()
        self._sampler = sampler
        self.name = without_secrets(settings.url)
        pyav()
        self._is_file = is_file(settings)
        self.is_paced = pacer.is_paced or not self._is_file
        if not self._is_file:
            self._health.is_in("connecting", self.name)
            return
        with _opened(settings) as container:  # reports at once a file that is not a video
            _video_stream(container, self.name)

    @property
    def health(self) -> SourceHealth:
        """See `Source.health`."""
        return self._health.now

    def batches(self) -> Iterator[SampleBatch]:
        """See `Source.batches`."""
        return self._file_batches() if self._is_file else self._live_batches()

    def _file_batches(self) -> Iterator[SampleBatch]:
        waiting: list[CameraSample] = []
        for sample in self._file_samples():
            waiting.append(sample)
            if len(waiting) == self._pacer.batch_size:
                if not self._pacer.wait(len(waiting)):
                    return
                yield self._batch(waiting)
                waiting = []
        if waiting and self._pacer.wait(len(waiting)):
            yield self._batch(waiting)

    def _file_samples(self) -> Iterator[CameraSample]:
        while True:
            with _opened(self._settings) as container:
                self._sampler.restart(_frames_per_second(container))
                number = -1
                for number, frame in enumerate(_decoded(container, self.name)):
                    if not self._pacer.goes_on():  # many frames may give no sample
                        return
                    values = None
                    if self._sampler.wants(number):
                        pixels, at_s = _pixels(frame), float(frame.time or 0.0)
                        values = self._sampler.add(pixels, number, at_s, is_due=True)
                    if values is not None:
                        yield CameraSample(values, time.time(), number)
                    elif self._sampler.counts_skipped:
                        self._health.count(skipped=1)
            if number < 0:
                raise _no_frame(self.name)
            if number + 1 < self._sampler.min_frames:
                needed = self._sampler.min_frames
                raise DataError(
                    f"{self.name}: holds {number + 1} frames, and a sample needs {needed}: give a longer video, or a "
                    "bundle trained with a shorter video.frame_interval_s."
                )
            if not self._settings.loop:
                return

    def _live_batches(self) -> Iterator[SampleBatch]:
        live = _NewestSamples(self._pacer.batch_size)
        reader = threading.Thread(target=self._read_live, args=(live,), name=f"camera-{self.source_id}", daemon=True)
        reader.start()
        try:
            while self._pacer.goes_on():
                if samples := live.take():
                    yield self._batch(samples)
        finally:
            live.over.set()

    def _read_live(self, live: _NewestSamples) -> None:
        """Read connection after connection until `live.over` is set; an error ends only its connection."""
        backoff = Backoff(FIRST_WAIT_S, max(FIRST_WAIT_S, self._settings.reconnect_max_s))
        while not live.over.is_set():
            started_s = time.monotonic()
            try:
                self._read_connection(live)
                reason = "the stream has ended"
            except DataError as error:
                reason = str(error)
            except Exception as error:  # from FFmpeg, or a frame that cannot be converted
                reason = f"{type(error).__name__}: {error}"
            if live.over.is_set():
                return
            if time.monotonic() - started_s >= STABLE_AFTER_S:
                backoff.reset()
            if self._health.is_in("disconnected", without_secrets(reason)):
                log.warning("camera_lost", source=self.source_id, url=self.name, reason=self.health.detail)
            live.over.wait(backoff.next_s())
            self._health.count(reconnects=1)

    def _read_connection(self, live: _NewestSamples) -> None:
        rate_per_s, due_s = self._settings.rate_per_s, 0.0
        with _opened(self._settings) as container:
            self._sampler.restart()
            for number, frame in enumerate(_decoded(container, self.name)):
                now_s, pixels = time.monotonic(), _pixels(frame)
                self._note_frame(pixels, now_s)
                values = self._sampler.add(pixels, number, now_s, is_due=now_s >= due_s)
                if live.over.is_set():
                    return
                if values is None:
                    if self._sampler.counts_skipped:
                        self._health.count(skipped=1)
                    continue
                if rate_per_s > 0:
                    due_s = max(due_s + 1.0 / rate_per_s, now_s)
                if live.put(CameraSample(values, time.time(), number)):
                    self._health.count(skipped=1)

    def _note_frame(self, pixels: NDArray[np.uint8], now_s: float) -> None:
        same_s = self._sampler.gate.same_for_s(pixels, now_s)
        if same_s >= self._settings.frozen_after_s:
            if self._health.is_in("frozen", f"the picture has not changed for {same_s:.0f} s"):
                log.warning("camera_frozen", source=self.source_id, url=self.name, seconds=round(same_s))
        elif self._health.is_in("running"):
            log.info("camera_running", source=self.source_id, url=self.name, reconnects=self.health.reconnects)

    def _batch(self, samples: list[CameraSample]) -> SampleBatch:
        moments = np.array([sample.captured_at_s for sample in samples])
        origins = [self._origin(sample) for sample in samples]
        return SampleBatch(self.source_id, self.modality, [sample.values for sample in samples], moments, origins)

    def _origin(self, sample: CameraSample) -> str:
        if self._is_file:
            return f"{Path(self.name).name}:{sample.number}"
        return f"{self.source_id}@{moment_text(sample.captured_at_s)}"


def is_file(settings: CameraSettings) -> bool:
    """Return whether the source is a video file, not a stream or a device."""
    return "://" not in settings.url and not settings.url.startswith("/dev/")


def check_video_file(settings: CameraSettings) -> None:
    """Open a video file and decode its first frame.

    Raises DataError if the file is missing or not a video, UnreadableInputError if it is damaged or cannot be read.
    """
    name = without_secrets(settings.url)
    with _opened(settings) as container:
        if next(_decoded(container, name), None) is None:
            raise _no_frame(name)


@contextlib.contextmanager
def _opened(settings: CameraSettings) -> Iterator[Any]:
    """Open the stream, device or file. Raises DataError, and UnreadableInputError for an existing video file."""
    av, name, reads_file = pyav(), without_secrets(settings.url), is_file(settings)
    if reads_file and not Path(settings.url).is_file():
        raise DataError(f"{name}: no such video file. Correct the url of source {settings.id!r}.")
    is_rtsp = settings.url.startswith(("rtsp://", "rtsps://"))
    options = (_RTSP_DEFAULTS if is_rtsp else {}) | settings.options
    kind = "v4l2" if settings.url.startswith("/dev/video") else None
    try:
        container = av.open(
            settings.url, format=kind, options=options, timeout=(settings.open_timeout_s, settings.stall_timeout_s)
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if reads_file and isinstance(error, OSError):  # no permission, or the disk fails; others: not a video
            raise UnreadableInputError(
                f"{name}: cannot be opened ({_words(error)}). Check its owner and disk."
            ) from None
        advice = " Convert it to MP4 (H.264)." if reads_file else ""
        raise DataError(f"{name}: cannot be opened ({_words(error)}).{advice}") from None
    with container:
        yield container


def _no_frame(name: str) -> UnreadableInputError:
    return UnreadableInputError(f"{name}: holds no frame that can be decoded. Convert it to MP4 (H.264).")


def _video_stream(container: Any, name: str) -> Any:
    """Return the video stream; raises DataError if there is none."""
    if not container.streams.video:
        raise DataError(f"{name}: holds no video stream.")
    return container.streams.video[0]


def _frames_per_second(container: Any) -> float:
    """Return the frame rate of a file, DEFAULT_FRAMES_PER_SECOND where it does not say."""
    rates = [stream.average_rate for stream in container.streams.video[:1]]
    return float(rates[0]) if rates and rates[0] else DEFAULT_FRAMES_PER_SECOND


def _pixels(frame: Any) -> NDArray[np.uint8]:
    """Return the pixels (height, width, 3) uint8 of a frame, in RGB, rotated as the file asks.

    OpenCV does the same in training.
    """
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    quarter_turns, rest = divmod(frame.rotation, 90)
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns and not rest else pixels


def _decoded(container: Any, name: str) -> Iterator[Any]:
    """Yield the decoded frames.

    Raises DataError if there is no video stream, UnreadableInputError if it stalls or cannot be decoded further.
    """
    av, stream = pyav(), _video_stream(container, name)
    if stream.codec_context is None:
        raise UnreadableInputError(
            f"{name}: its video has no known codec, so it cannot be decoded. Convert it to MP4 (H.264)."
        )
    stream.thread_type = "AUTO"
    damaged = 0
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:  # damaged packet: the picture recovers at the next key frame
                damaged += 1
                if damaged >= MAX_CONSECUTIVE_DAMAGED:
                    raise UnreadableInputError(f"{name}: {damaged} packets in a row cannot be decoded.") from None
                continue
            for frame in frames:
                damaged = 0
                yield frame
    except (av.error.FFmpegError, ValueError) as error:  # ValueError: a damaged header, such as a name that is no text
        raise UnreadableInputError(f"{name}: cannot be decoded further ({_words(error)}).") from None


def _words(error: Exception) -> str:
    """Return FFmpeg's message without numbers and addresses."""
    return str(getattr(error, "strerror", None) or error)
