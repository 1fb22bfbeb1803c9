"""Frames of a camera's stream or of a video file, decoded by FFmpeg through PyAV.

A live stream is read on a thread of its own at the pace of the camera, and the newest frame that passes the gates waits
for the screener: what it cannot keep up with is skipped and counted, so the picture is never old. A stream that ends,
fails or stalls is opened again, with longer and longer waits. A file is read as fast as it is screened, frame by frame,
or at the rate asked for.
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
from edge.sources.frames import FrameGate, ready_frame
from edge.sources.health import HealthRecord, SourceHealth
from shared.backoff import Backoff
from shared.errors import DataError, MissingExtraError
from shared.logs import EventLog
from shared.modality import Modality
from shared.samples import SampleBatch
from shared.texts import moment_text, without_secrets

FIRST_WAIT_S = 0.5
GOOD_AFTER_S = 30.0  # a connection that held so long was a good one: the next wait is short again
WAKE_S = 0.2
MAX_DAMAGED_IN_A_ROW = 500  # packets
_RTSP_DEFAULTS = {"rtsp_transport": "tcp"}  # over UDP most losses are seen as garbage in the picture

log = EventLog("camera")


@dataclass(frozen=True, slots=True)
class Frame:
    """`pixels`: (height, width, 3) uint8 RGB. `number`: of the frame in its file or connection, from 0."""

    pixels: NDArray[np.uint8]
    captured_at_s: float
    number: int


class _Live:
    """The newest frames of a live stream, from the thread that reads to the one that screens; `over` ends the first."""

    def __init__(self, newest: "deque[Frame]") -> None:
        self._newest, self._come, self.over = newest, threading.Condition(), threading.Event()

    def put(self, frame: Frame) -> bool:
        """Add a frame; returns whether an older one had to go."""
        with self._come:
            full = len(self._newest) == self._newest.maxlen
            self._newest.append(frame)
            self._come.notify()
            return full

    def take(self) -> list[Frame]:
        """All frames there are; waits for one for WAKE_S at the most."""
        with self._come:
            if not self._newest:
                self._come.wait(WAKE_S)
            frames = list(self._newest)
            self._newest.clear()
            return frames


class CameraSource:
    """Each frame that passes stride, rate and motion gate a sample (image)."""

    modality = Modality.IMAGE

    def __init__(self, settings: CameraSettings, pacer: Pacer) -> None:
        self.source_id = settings.id
        self._settings, self._pacer = settings, pacer
        self._health = HealthRecord()
        self._gate = FrameGate(settings)
        self.name = without_secrets(settings.url)
        _av()
        self._is_file = "://" not in settings.url and not settings.url.startswith("/dev/")
        self.is_paced = pacer.is_paced or not self._is_file
        if not self._is_file:
            self._health.is_in("connecting", self.name)
            return
        if not Path(settings.url).is_file():
            raise DataError(f"{settings.url}: no such video file. Correct the url of source {settings.id!r}.")
        with self._open():  # a file that is no video is told of at once
            pass

    @property
    def health(self) -> SourceHealth:
        """See `Source.health`."""
        return self._health.now

    def batches(self) -> Iterator[SampleBatch]:
        """See `Source.batches`."""
        return self._file_batches() if self._is_file else self._live_batches()

    def _file_batches(self) -> Iterator[SampleBatch]:
        waiting: list[Frame] = []
        for frame in self._file_frames():
            waiting.append(frame)
            if len(waiting) == self._pacer.batch_size:
                if not self._pacer.wait(len(waiting)):
                    return
                yield self._batch(waiting)
                waiting = []
        if waiting and self._pacer.wait(len(waiting)):
            yield self._batch(waiting)

    def _file_frames(self) -> Iterator[Frame]:
        while True:
            with self._open() as container:
                for number, (pixels, at_s) in enumerate(_decoded(container, self.name)):
                    if not self._pacer.goes_on():  # between two frames that pass may lie many that do not
                        return
                    if self._gate.passes_stride(number) and self._gate.passes_motion(pixels, at_s):
                        yield Frame(ready_frame(pixels, self._settings), time.time(), number)
                    else:
                        self._health.count(skipped=1)
            if not self._settings.loop:
                return
            self._gate.forget()

    def _live_batches(self) -> Iterator[SampleBatch]:
        live = _Live(deque(maxlen=self._pacer.batch_size))
        reader = threading.Thread(target=self._read_live, args=(live,), name=f"camera-{self.source_id}", daemon=True)
        reader.start()
        try:
            while self._pacer.goes_on():
                if frames := live.take():
                    yield self._batch(frames)
        finally:
            live.over.set()

    def _read_live(self, live: "_Live") -> None:
        """Read until it is over; whatever goes wrong with a connection, the next is made."""
        backoff = Backoff(FIRST_WAIT_S, max(FIRST_WAIT_S, self._settings.reconnect_max_s))
        while not live.over.is_set():
            started_s = time.monotonic()
            try:
                self._read_connection(live)
                reason = "the stream has ended"
            except DataError as error:
                reason = str(error)
            except Exception as error:  # of FFmpeg, or of a frame that is no picture
                reason = f"{type(error).__name__}: {error}"
            if live.over.is_set():
                return
            if time.monotonic() - started_s >= GOOD_AFTER_S:
                backoff.reset()
            if self._health.is_in("disconnected", without_secrets(reason)):
                log.warning("camera_lost", source=self.source_id, url=self.name, reason=self.health.detail)
            live.over.wait(backoff.next_s())
            self._health.count(reconnects=1)
            self._gate.forget()

    def _read_connection(self, live: "_Live") -> None:
        rate_per_s, due_s = self._settings.rate_per_s, 0.0
        with self._open() as container:
            for number, (pixels, _) in enumerate(_decoded(container, self.name)):
                now_s = time.monotonic()
                self._note_frame(pixels, now_s)
                passes = self._gate.passes_stride(number) and now_s >= due_s and self._gate.passes_motion(pixels, now_s)
                if live.over.is_set():
                    return
                if not passes:
                    self._health.count(skipped=1)
                    continue
                if rate_per_s > 0:
                    due_s = max(due_s + 1.0 / rate_per_s, now_s)
                frame = Frame(ready_frame(pixels, self._settings), time.time(), number)
                if live.put(frame):
                    self._health.count(skipped=1)

    def _note_frame(self, pixels: NDArray[np.uint8], now_s: float) -> None:
        same_s = self._gate.same_for_s(pixels, now_s)
        if same_s >= self._settings.frozen_after_s:
            if self._health.is_in("frozen", f"the picture has not changed for {same_s:.0f} s"):
                log.warning("camera_frozen", source=self.source_id, url=self.name, seconds=round(same_s))
        elif self._health.is_in("running"):
            log.info("camera_running", source=self.source_id, url=self.name, reconnects=self.health.reconnects)

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        av, settings = _av(), self._settings
        is_rtsp = settings.url.startswith(("rtsp://", "rtsps://"))
        options = (_RTSP_DEFAULTS if is_rtsp else {}) | settings.options
        kind = "v4l2" if settings.url.startswith("/dev/video") else None
        try:
            container = av.open(
                settings.url, format=kind, options=options, timeout=(settings.open_timeout_s, settings.stall_timeout_s)
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            advice = "" if not self._is_file else " Convert it to MP4 (H.264)."
            raise DataError(f"{self.name}: cannot be opened ({_words(error)}).{advice}") from None
        with container:
            yield container

    def _batch(self, frames: list[Frame]) -> SampleBatch:
        moments = np.array([frame.captured_at_s for frame in frames])
        origins = [self._origin(frame) for frame in frames]
        return SampleBatch(self.source_id, self.modality, [frame.pixels for frame in frames], moments, origins)

    def _origin(self, frame: Frame) -> str:
        if self._is_file:
            return f"{Path(self.name).name}:{frame.number}"
        return f"{self.source_id}@{moment_text(frame.captured_at_s)}"


def _decoded(container: Any, name: str) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Pixels and presentation time in seconds of each frame; raises DataError where there is no picture in it, or where
    the stream stalls or cannot be decoded further."""
    av = _av()
    if not container.streams.video:
        raise DataError(f"{name}: holds no video stream.")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    damaged = 0
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:  # a damaged packet: the next key frame mends it
                damaged += 1
                if damaged >= MAX_DAMAGED_IN_A_ROW:
                    raise DataError(f"{name}: {damaged} packets in a row cannot be decoded.") from None
                continue
            for frame in frames:
                damaged = 0
                yield frame.to_ndarray(format="rgb24"), float(frame.time or 0.0)
    except av.error.FFmpegError as error:
        raise DataError(f"{name}: cannot be read further ({_words(error)}).") from None


def _words(error: Exception) -> str:
    """What FFmpeg says, without numbers and addresses."""
    return str(getattr(error, "strerror", None) or error)


def _av() -> Any:
    """PyAV, imported at first use: a device without a camera never pays for it."""
    try:
        import av
    except ImportError:
        raise MissingExtraError("Cameras and video files need PyAV: pip install 'vedette[edge]'.") from None
    av.logging.set_level(av.logging.PANIC)  # what matters is told of once, by us
    return av
