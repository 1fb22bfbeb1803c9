"""Hours of a camera with drawn events for the choice of video defaults.

Each unlabelled hour of `cctv_upcam` is judged in turn, the others are normal, at one frame per second. No label is
used. Events are drawn into consecutive frames of half of the hour and last as long as real ones:

| kind | event |
|---|---|
| `person` | a figure walks in, stays, walks out |
| `crowd` | two to four such figures |
| `displaced` | a moving object of this hour, usually a person, pasted at another place |
| `animal` | a small object that roams |
| `left` | an object that appears and stays |
| `taken` | an object that disappears from the room |
| `covered` | an object that hides part of the picture |
| `turned` | the camera is pushed aside |

Slow and sudden changes of light are normal. They affect a third of the hour, with and without events.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

from benchmarks.data_folder import data_folder
from cloud.training.samples.videos import END_SLACK_FRAMES, find_videos
from shared.videos import frames_of

CAMERA = "cctv_upcam"
FRAME_INTERVAL_S = 1.0
SECONDS = (3, 30)  # log-uniform length of an event; multiplied by STILL_FACTOR for objects that do not move
STILL_FACTOR = 2
PAUSE_SECONDS = (10, 40)
LIGHT_SHARE, LIGHT_SECONDS = 0.33, 60
GAIN, GAMMA, TINT = (0.8, 1.25), (0.9, 1.12), (0.97, 1.03)

Frame = NDArray[np.uint8]
Sprite = NDArray[np.float32]  # (height, width, 4): colours in 0..255 and opacity in 0..1
Draw = Callable[[Frame, int], Frame]  # (frame, second of the event) -> frame with the event


@dataclass(frozen=True)
class Hour:
    """Frames (seconds, height, width, 3) of a normal video, one per second."""

    name: str
    frames: NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """Input of an event: the median frame and all frames of an hour, and the event's length in seconds."""

    median: Frame
    frames: NDArray[np.uint8]
    seconds: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.median.shape[0], self.median.shape[1]


def hours() -> Iterator[Hour]:
    """Yield the unlabelled hours; none if their folder is absent."""
    if not (data_folder() / CAMERA).is_dir():
        return
    for video in find_videos(data_folder() / CAMERA).normal:
        step = max(1, round(FRAME_INTERVAL_S * video.info.frames_per_second))
        wanted = range(0, video.info.frames - END_SLACK_FRAMES, step)
        yield Hour(video.path.stem, np.stack([frame for _, frame in frames_of(video.path, wanted)]))


def with_events(
    frames: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.intp], NDArray[np.bool_]]:
    """Draw events and changes of light into frames (n, height, width, 3).

    Return the frames; the position (n,) of each frame's event in KINDS, -1 for none; and a mask (n,) of frames with
    changed light.
    """
    out, kinds = frames.copy(), np.full(len(frames), -1)
    median = np.median(frames[:: max(1, len(frames) // 200)], axis=0).astype(np.uint8)
    order: list[int] = []
    start = int(rng.integers(*PAUSE_SECONDS))
    while start < len(frames):
        order = order or rng.permutation(len(KINDS)).tolist()
        kind = order.pop()
        make, still = _MAKERS[KINDS[kind]]
        seconds = round(math.exp(rng.uniform(*np.log(SECONDS))) * (STILL_FACTOR if still else 1))
        draw = make(Scene(median, frames, seconds), rng)
        for second in range(min(seconds, len(frames) - start)):
            out[start + second] = draw(frames[start + second], second)
            kinds[start + second] = kind
        start += seconds + int(rng.integers(*PAUSE_SECONDS))
    relit = np.zeros(len(frames), dtype=np.bool_)
    for begin in range(0, len(frames), LIGHT_SECONDS):
        if rng.random() < LIGHT_SHARE:
            stretch = slice(begin, min(begin + LIGHT_SECONDS, len(frames)))
            out[stretch], relit[stretch] = _in_other_light(out[stretch], rng), True
    return out, kinds, relit


def _in_other_light(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the frames in another light, either constant or rising and falling."""
    gain, gamma, tint = rng.uniform(*GAIN), rng.uniform(*GAMMA), rng.uniform(*TINT, size=3)
    share = np.ones(len(frames)) if rng.random() < 0.5 else np.sin(np.linspace(0, np.pi, len(frames)))
    share = share[:, None, None, None]
    changed = 255.0 * gain * (frames / 255.0) ** gamma * tint
    return np.clip(share * changed + (1 - share) * frames, 0, 255).astype(np.uint8)


def _person(scene: Scene, rng: np.random.Generator) -> Draw:
    height, width = scene.size
    tall = rng.uniform(0.3, 0.85) * height
    seed = int(rng.integers(2**32))
    strides = [_figure(tall, phase, np.random.default_rng(seed)) for phase in (-1.0, 0.0, 1.0, 0.0)]
    left, floor = rng.uniform(0.1, 0.9) * width, rng.uniform(max(tall, 0.5 * height), height)
    way = _visit(left, width, scene.seconds, rng)
    dim = _opacity(rng)

    def draw(frame: Frame, second: int) -> Frame:
        walks = abs(way(second) - left) > 1
        sprite = strides[second % 4 if walks else 1]
        return _pasted(frame, sprite, floor - sprite.shape[0], way(second) - sprite.shape[1] / 2, dim)

    return draw


def _crowd(scene: Scene, rng: np.random.Generator) -> Draw:
    members = [_person(scene, rng) for _ in range(int(rng.integers(2, 5)))]

    def draw(frame: Frame, second: int) -> Frame:
        for member in members:
            frame = member(frame, second)
        return frame

    return draw


def _displaced(scene: Scene, rng: np.random.Generator) -> Draw:
    """Paste the largest moving object of another frame at a random place, with a small sway."""
    height, width = scene.size
    sprite = None
    for _ in range(20):
        sprite = _moving_part(scene, scene.frames[rng.integers(len(scene.frames))])
        if sprite is not None:
            break
    if sprite is None:
        return _animal(scene, rng)
    top = rng.uniform(0, max(1, height - sprite.shape[0]))
    left = rng.uniform(0, max(1, width - sprite.shape[1]))
    sway, mirrored = rng.uniform(0, 3), rng.random() < 0.5
    sprite = sprite[:, ::-1] if mirrored else sprite

    def draw(frame: Frame, second: int) -> Frame:
        return _pasted(frame, sprite, top, left + sway * math.sin(second), 1.0)

    return draw


def _animal(scene: Scene, rng: np.random.Generator) -> Draw:
    height, width = scene.size
    tall = rng.uniform(0.1, 0.2) * height
    sprite = _thing(tall, tall * rng.uniform(1, 2), rng)
    place, way = rng.uniform((0.4 * height, 0), (height - tall, width)), rng.normal(size=(scene.seconds + 1, 2))
    steps = np.cumsum(way * (0.02 * height, 0.06 * width), axis=0)
    dim = _opacity(rng)

    def draw(frame: Frame, second: int) -> Frame:
        top, left = place + steps[second]
        return _pasted(frame, sprite, np.clip(top, 0, height - 2), np.clip(left, 0, width - 2), dim)

    return draw


def _left(scene: Scene, rng: np.random.Generator) -> Draw:
    height, width = scene.size
    tall, wide = rng.uniform(0.1, 0.35, size=2) * height
    sprite = _thing(tall, wide, rng)
    top, left, dim = rng.uniform(0.2, 1.0) * (height - tall), rng.uniform(0, width - wide), _opacity(rng)
    return lambda frame, second: _pasted(frame, sprite, top, left, dim)


def _taken(scene: Scene, rng: np.random.Generator) -> Draw:
    """Inpaint a place that has edges."""
    height, width = scene.size
    edges = cv2.Laplacian(cv2.cvtColor(scene.median, cv2.COLOR_RGB2GRAY), cv2.CV_32F)
    busy = cv2.boxFilter(np.abs(edges), -1, (9, 9))
    flat = busy.ravel() / busy.sum()
    row, column = divmod(int(rng.choice(len(flat), p=flat)), width)
    mask = np.zeros((height, width), dtype=np.uint8)
    axes = tuple(int(side) for side in rng.uniform(0.08, 0.22, size=2) * height)
    cv2.ellipse(mask, (column, row), axes, 0, 0, 360, 255, -1)
    blur = rng.uniform(0.02, 0.05) * height

    def draw(frame: Frame, second: int) -> Frame:
        filled = cv2.GaussianBlur(cv2.inpaint(frame, mask, 3, cv2.INPAINT_TELEA), (0, 0), blur)
        return np.where(mask[..., None] > 0, filled, frame).astype(np.uint8)

    return draw


def _covered(scene: Scene, rng: np.random.Generator) -> Draw:
    height, width = scene.size
    sprite = _thing(height * rng.uniform(0.5, 1.5), width * rng.uniform(0.4, 1.2), rng, blurred=True)
    top, left = rng.uniform(-0.3, 0.5) * height, rng.uniform(-0.3, 0.7) * width
    dim = rng.uniform(0.6, 1.0)
    return lambda frame, second: _pasted(frame, sprite, top, left, dim)


def _turned(scene: Scene, rng: np.random.Generator) -> Draw:
    height, width = scene.size
    angle, shift = rng.uniform(-6, 6), rng.uniform(0.03, 0.15) * np.array([width, height]) * rng.choice([-1, 1], 2)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    matrix[:, 2] += shift

    def draw(frame: Frame, second: int) -> Frame:
        turned: Frame = cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        return turned

    return draw


_MAKERS: dict[str, tuple[Callable[[Scene, np.random.Generator], Draw], bool]] = {
    "person": (_person, False),
    "crowd": (_crowd, False),
    "displaced": (_displaced, False),
    "animal": (_animal, False),
    "left": (_left, True),
    "taken": (_taken, True),
    "covered": (_covered, False),
    "turned": (_turned, False),
}
KINDS = tuple(_MAKERS)


def _visit(left: float, width: int, seconds: int, rng: np.random.Generator) -> Callable[[int], float]:
    """Return a function from second to x position in pixels of a visitor.

    The visitor comes in at the nearer side, stays at `left`, and leaves.
    """
    outside = -0.05 * width if left < width / 2 else 1.05 * width
    walking = max(1.0, min(seconds / 3, 5 * rng.uniform(0.5, 1.0)))

    def at(second: int) -> float:
        share = min((second + 0.7) / walking, (seconds - second - 0.3) / walking, 1.0)
        return float(outside + (left - outside) * share)

    return at


def _opacity(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.6, 1.0))  # below 1 for motion blur, glass or bad light


def _figure(tall: float, phase: float, rng: np.random.Generator) -> Sprite:
    """Return a figure `tall` pixels high whose clothes are cut from photographs.

    `phase` in -1..1 sets the distance between the feet.
    """
    height = max(8, round(tall))
    width = max(5, round(0.45 * tall))
    centre, unit = width / 2, height / 8
    trunk, legs, head = (np.zeros((height, width), np.uint8) for _ in range(3))
    cv2.ellipse(trunk, _point(centre, 2.7 * unit), _axes(rng.uniform(0.9, 1.3) * unit, 1.9 * unit), 0, 0, 360, 255, -1)
    for side in (-1, 1):
        foot = _point(centre + side * (0.5 + 0.8 * abs(phase)) * unit, 8 * unit)
        cv2.line(legs, _point(centre + side * 0.4 * unit, 4.3 * unit), foot, 255, max(1, round(0.8 * unit)))
    cv2.ellipse(head, _point(centre, 0.75 * unit), _axes(0.55 * unit, 0.7 * unit), 0, 0, 360, 255, -1)
    sprite = np.zeros((height, width, 4), dtype=np.float32)
    for mask, dark in ((legs, rng.uniform(0.2, 0.9)), (trunk, rng.uniform(0.3, 1.1))):
        sprite = _filled(sprite, mask, _texture(height, width, rng) * dark)
    skin = np.array([220, 175, 150]) * rng.uniform(0.35, 1.0)
    return _filled(sprite, head, np.broadcast_to(skin, (height, width, 3)))


def _thing(tall: float, wide: float, rng: np.random.Generator, *, blurred: bool = False) -> Sprite:
    """Return an ellipse or a box whose surface is cut from a photograph."""
    height, width = max(3, round(tall)), max(3, round(wide))
    mask = np.zeros((height, width), np.uint8)
    if rng.random() < 0.5:
        mask[:] = 255
    else:
        cv2.ellipse(mask, (width // 2, height // 2), (width // 2, height // 2), 0, 0, 360, 255, -1)
    texture = _texture(height, width, rng) * rng.uniform(0.2, 1.1)
    if blurred:
        texture = cv2.GaussianBlur(texture, (0, 0), 0.1 * max(height, width))
    return _filled(np.zeros((height, width, 4), dtype=np.float32), mask, texture)


def _texture(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    photograph = _PHOTOGRAPHS[rng.integers(len(_PHOTOGRAPHS))]()
    side = int(rng.uniform(0.1, 0.4) * min(photograph.shape[:2]))
    top, left = (int(rng.integers(0, length - side)) for length in photograph.shape[:2])
    patch = cv2.resize(
        photograph[top : top + side, left : left + side, :3], (width, height), interpolation=cv2.INTER_AREA
    )
    return np.asarray(patch, dtype=np.float32)


_PHOTOGRAPHS = (skimage.data.astronaut, skimage.data.coffee, skimage.data.chelsea, skimage.data.rocket)


def _filled(sprite: Sprite, mask: NDArray[np.uint8], colours: NDArray[np.floating]) -> Sprite:
    inside = mask > 0
    sprite[inside, :3], sprite[inside, 3] = colours[inside], 1.0
    return sprite


def _moving_part(scene: Scene, frame: Frame) -> Sprite | None:
    """Return the largest connected region that differs from the median.

    Return None if it covers less than 0.4 % or more than 20 % of the frame.
    """
    difference = np.abs(frame.astype(np.int16) - scene.median).max(axis=2).astype(np.uint8)
    mask = (cv2.GaussianBlur(difference, (0, 0), 1) > 30).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return None
    best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    left, top, width, height, area = stats[best]
    if not 0.004 < area / mask.size < 0.2:
        return None
    part = np.zeros((height, width, 4), dtype=np.float32)
    region = (slice(top, top + height), slice(left, left + width))
    return _filled(part, mask[region] * np.uint8(255), frame[region].astype(np.float32))


def _pasted(frame: Frame, sprite: Sprite, top: float, left: float, opacity: float) -> Frame:
    """Return the frame with the sprite at (top, left), with soft edges and clipped to the frame."""
    height, width = frame.shape[:2]
    shift = np.array([[1.0, 0.0, left], [0.0, 1.0, top]])
    placed = cv2.warpAffine(sprite, shift, (width, height), flags=cv2.INTER_LINEAR)
    alpha = cv2.GaussianBlur(placed[..., 3], (0, 0), 0.6)[..., None] * opacity
    colours = placed[..., :3] / np.maximum(placed[..., 3:], 1e-3)
    return np.asarray(np.clip(frame * (1 - alpha) + colours * alpha, 0, 255), dtype=np.uint8)


def _point(x: float, y: float) -> tuple[int, int]:
    return round(x), round(y)


def _axes(x: float, y: float) -> tuple[int, int]:
    return max(1, round(x)), max(1, round(y))
