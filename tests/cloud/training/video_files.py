"""Small test videos of a grey wall with a flickering lamp and an optional moving box."""

from pathlib import Path

import numpy as np

SIZE = (64, 96)


def frames(count: int, *, box: range = range(0), seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return frames (count, height, width, 3) uint8; a bright box crosses those listed in `box`."""
    generator = np.random.default_rng(seed)
    height, width = size
    wall = np.linspace(60, 120, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None] + np.zeros(3)
    pictures = wall + generator.normal(0, 3, (count, height, width, 1))
    pictures[:, 4:12, 4:12] += generator.uniform(0, 40, (count, 1, 1, 1))
    for index in box:
        left = (index - box.start) * 4 % (width - 20)
        pictures[index, height // 3 : height - 4, left : left + 16] = (240, 60, 30)
    return np.clip(pictures, 0, 255).astype(np.uint8)


def write_video(path: Path, pictures: np.ndarray, frames_per_second: float = 5.0) -> Path:
    """Write frames as a video file; the suffix selects the codec."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    size = (pictures.shape[2], pictures.shape[1])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), frames_per_second, size)
    for picture in pictures:
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    return path


def write_labels(path: Path, labels: list[int], header: str = "") -> Path:
    """Write a label file with one label per line."""
    path.write_text("\n".join([*([header] if header else []), *map(str, labels)]) + "\n")
    return path
