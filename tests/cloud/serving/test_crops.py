"""Tests of judging crops like the whole image, by their visible area alone."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import data

from cloud.serving.analysis import Analysis
from cloud.serving.crops import known_patches, place_crop
from cloud.training.analysis import AnalysisOptions, fit_analysis
from cloud.training.encoders import fit_image_encoder
from shared.bundle import InputSpec
from shared.crops import CONTEXT_PIXELS, MIN_KNOWN_SHARE
from shared.errors import SampleRejected
from shared.modalities import fit_preprocessor
from shared.modalities.image import hot_region
from shared.modality import Modality
from shared.samples import ImageCrop, Region, Verdict

SIDE = 384
DEFECT = slice(180, 204)
AROUND = Region(64, 64, 256, 256)


@dataclass(frozen=True)
class Bricks:
    analysis: Analysis
    good: NDArray[np.uint8]
    broken: NDArray[np.uint8]


def crops(count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return crops (count, SIDE, SIDE, 3) of a photographed wall."""
    wall = data.brick()
    starts = rng.integers(0, 512 - SIDE, (count, 2))
    pieces = np.stack([wall[top : top + SIDE, left : left + SIDE] for top, left in starts])
    return np.repeat(pieces[..., np.newaxis], 3, axis=3)


@pytest.fixture(scope="module")
def bricks() -> Bricks:
    torch.set_num_threads(1)
    rng = np.random.default_rng(3)
    train = crops(16, rng)
    preprocessor = fit_preprocessor(Modality.IMAGE, list(train), InputSpec(image_height=SIDE, image_width=SIDE))
    generator = torch.Generator().manual_seed(0)
    encoder, _ = fit_image_encoder(train, generator=generator, dim=16)
    options = AnalysisOptions(methods=("knn",), device="cpu")
    analysis = fit_analysis(preprocessor, encoder, train, crops(24, rng), options).analysis
    good = crops(4, rng)
    broken = good.copy()
    broken[:, DEFECT, DEFECT] = rng.integers(0, 256, (4, 24, 24, 3), dtype=np.uint8)
    return Bricks(analysis, good, broken)


def verdicts(analysis: Analysis, images: list[NDArray[np.uint8]], parts: list[ImageCrop | None]) -> list[Verdict]:
    answers = analysis.judge(images, parts)
    assert all(isinstance(answer, Verdict) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Verdict)]


def test_a_defect_is_as_anomalous_in_a_crop_as_in_the_whole_image(bricks: Bricks) -> None:
    part = ImageCrop(SIDE, SIDE, AROUND)
    cut = [image[AROUND.rows, AROUND.columns] for image in bricks.broken]
    whole = verdicts(bricks.analysis, list(bricks.broken), [])
    parts = verdicts(bricks.analysis, cut, [part] * 4)
    for one, other in zip(whole, parts, strict=True):
        assert other.p_value < 0.1
        assert other.score == pytest.approx(one.score, rel=0.1)
        assert other.anomaly_map is not None
        assert one.anomaly_map is not None
        assert np.unravel_index(other.anomaly_map.argmax(), (48, 48)) == np.unravel_index(
            one.anomaly_map.argmax(), (48, 48)
        )


def test_the_border_of_a_crop_is_not_anomalous(bricks: Bricks) -> None:
    cut = [image[AROUND.rows, AROUND.columns] for image in bricks.good]
    whole = verdicts(bricks.analysis, list(bricks.good), [])
    parts = verdicts(bricks.analysis, cut, [ImageCrop(SIDE, SIDE, AROUND)] * 4)
    for one, other in zip(whole, parts, strict=True):
        assert other.score <= one.score * 1.05
        assert other.anomaly_map is not None
        assert other.anomaly_map[:8].max() < 96  # dark outside the crop


def test_crops_and_whole_images_are_judged_in_one_batch(bricks: Bricks) -> None:
    part = ImageCrop(SIDE, SIDE, AROUND)
    mixed = [bricks.broken[0], bricks.broken[1][AROUND.rows, AROUND.columns], bricks.good[2]]
    alone = [
        verdicts(bricks.analysis, [image], [which])[0] for image, which in zip(mixed, (None, part, None), strict=True)
    ]
    together = verdicts(bricks.analysis, mixed, [None, part, None])
    assert [one.score for one in together] == pytest.approx([one.score for one in alone], rel=1e-4)


def test_previews_and_too_small_crops_are_not_judged(bricks: Bricks) -> None:
    small = bricks.good[0][:100, :100]
    answers = bricks.analysis.judge(
        [small, bricks.good[0], small],
        [ImageCrop(SIDE, SIDE, None), None, ImageCrop(SIDE, SIDE, Region(140, 140, 100, 100))],
    )
    assert "preview" in str(answers[0])
    assert isinstance(answers[1], Verdict)
    assert "too small" in str(answers[2])
    assert isinstance(answers[0], SampleRejected)
    assert isinstance(answers[2], SampleRejected)


def test_a_crop_of_a_larger_image_is_scaled_with_it() -> None:
    part = ImageCrop(1000, 1000, Region(200, 200, 600, 800))
    canvas = place_crop(np.full((600, 800, 1), 200, np.uint8), part, (500, 250), (50, 25))
    assert canvas.shape == (500, 250, 3)
    known = known_patches(part, (500, 250), (50, 25))
    assert known[20:30, 15:].all()  # the image and the crop end at the same right edge
    assert not known[:, : (50 + CONTEXT_PIXELS) // 10].any()
    assert not known[: (100 + CONTEXT_PIXELS) // 10].any()
    assert not known[31:].any()


sides, starts = st.integers(1, 400), st.integers(0, 399)


@given(st.tuples(sides, sides), st.tuples(starts, starts), st.tuples(sides, sides))
def test_any_crop_gives_an_image_of_the_graph_s_size_or_a_reason(
    whole: tuple[int, int], corner: tuple[int, int], extent: tuple[int, int]
) -> None:
    (height, width), (top, left), (rows, columns) = whole, corner, extent
    region = Region(min(top, height - 1), min(left, width - 1), 0, 0)
    region = Region(region.top, region.left, min(rows, height - region.top), min(columns, width - region.left))
    part = ImageCrop(height, width, region)
    try:
        canvas = place_crop(np.zeros((region.height, region.width, 3), np.uint8), part, (224, 320), (28, 40))
    except SampleRejected:
        assert known_patches(part, (224, 320), (28, 40)).mean() < 0.01
    else:
        assert canvas.shape == (224, 320, 3)
        assert known_patches(part, (224, 320), (28, 40)).any()


def test_every_patch_of_a_whole_image_is_known() -> None:
    assert known_patches(ImageCrop(300, 300, Region(0, 0, 300, 300)), (224, 224), (28, 28)).all()
    assert not known_patches(ImageCrop(300, 300, None), (224, 224), (28, 28)).any()


@example(2, 11, 32, 1.0, 0)
@given(st.integers(2, 90), st.integers(2, 90), st.sampled_from([8, 16, 32]), st.floats(0.3, 3.0), st.integers(0, 2**32))
def test_crops_made_by_a_device_can_be_judged(rows: int, columns: int, patch: int, zoom: float, seed: int) -> None:
    size, random = (16 * rows, 16 * columns), np.random.default_rng(seed)
    grid = max(1, size[0] // patch), max(1, size[1] // patch)
    hot = np.zeros(grid, np.uint8)
    hot[random.integers(0, grid[0]), random.integers(0, grid[1])] = 255
    height, width = max(8, int(size[0] * zoom)), max(8, int(size[1] * zoom))
    region = hot_region(hot, (height, width), size)
    known = known_patches(ImageCrop(height, width, region), size, grid)
    assert known.mean() >= MIN_KNOWN_SHARE
    assert known[np.unravel_index(hot.argmax(), hot.shape)]
