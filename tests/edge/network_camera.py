"""A camera on the network, as a process of its own: `python network_camera.py URL FORMAT [HEIGHT WIDTH]`.

It streams a moving square until it is killed; a line "still" on its standard input freezes the picture, "moving" lets
it go on.
"""

import os
import sys
import threading
import time
from typing import Any

import av
import numpy as np

FRAMES_PER_S = 25


def picture(level: int, square_at: int | None = None, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """(height, width, 3) of one brightness, with a white square at that column."""
    pixels = np.full((*size, 3), level, np.uint8)
    if square_at is not None:
        pixels[16:32, square_at : square_at + 16] = 255
    return pixels


class Recording:
    """A video file or stream that takes frames."""

    def __init__(self, target: str, kind: str | None = None, size: tuple[int, int] = (48, 64)) -> None:
        self._container = av.open(target, "w", format=kind)
        self._stream: Any = self._container.add_stream("mpeg4", rate=FRAMES_PER_S)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.gop_size = 5

    def add(self, pixels: np.ndarray) -> None:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


def main(url: str, kind: str, height: str = "48", width: str = "64") -> None:
    size = (int(height), int(width))
    still = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            (still.set if line.strip() == "still" else still.clear)()
        os._exit(0)  # the parent process has ended

    threading.Thread(target=listen, daemon=True).start()
    while True:
        try:
            recording, number = Recording(url, kind, size), 0
            while True:
                recording.add(picture(70, None, size) if still.is_set() else picture(40, number % 40, size))
                number += 1
                time.sleep(0.5 / FRAMES_PER_S)
        except (av.error.FFmpegError, OSError):  # nobody listens yet
            time.sleep(0.2)


if __name__ == "__main__":
    main(*sys.argv[1:])
