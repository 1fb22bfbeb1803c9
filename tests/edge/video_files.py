"""Video files of tests, and damaged ones."""

from pathlib import Path

import numpy as np

from tests.edge.network_camera import Recording, picture

UNREADABLE = "/proc/self/mem"  # a file that can be opened, and whose first byte cannot be read


def video(path: Path, frames: list[np.ndarray]) -> Path:
    recording = Recording(str(path))
    for pixels in frames:
        recording.add(pixels)
    recording.close()
    return path


def without_codec(path: Path) -> Path:
    """Change the codes of the codec in an MP4 file to ones that no decoder has."""
    data = video(path, [picture(90)] * 5).read_bytes()
    path.write_bytes(data.replace(b"mp4v", b"zzzz").replace(b"esds", b"free"))
    return path
