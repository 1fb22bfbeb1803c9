"""Clips become inputs of one size."""

import numpy as np
import pytest

from shared.bundle import InputSpec
from shared.errors import DataError
from shared.preprocessing.video import VideoPreprocessor

SPEC = InputSpec(image_height=32, image_width=64, window_length=2)


def clip(frames: int = 2, height: int = 48, width: int = 96, bands: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, bands), dtype=np.uint8)


def test_each_frame_is_resized_and_grey_becomes_rgb() -> None:
    prepared = VideoPreprocessor(SPEC).prepare([clip(), clip(bands=1)])
    assert prepared.inputs.shape == (2, 2, 32, 64, 3)
    assert prepared.inputs.dtype == np.uint8
    assert (prepared.inputs[1, ..., 0] == prepared.inputs[1, ..., 2]).all()
    frame = VideoPreprocessor(SPEC).prepare([clip()[::-1]]).inputs[0]
    np.testing.assert_array_equal(frame[::-1], prepared.inputs[0])  # frames stay in order, each by itself


def test_clips_of_the_right_size_pass_unchanged() -> None:
    clips = np.stack([clip(height=32, width=64)] * 3)
    np.testing.assert_array_equal(VideoPreprocessor(SPEC).prepare(clips).inputs, clips)


def test_a_clip_that_cannot_be_used_is_rejected_with_its_reason() -> None:
    batch = [clip(), clip(frames=3), clip().astype(np.float32), clip()[0], clip(height=4), clip()]
    prepared = VideoPreprocessor(SPEC).prepare(batch)
    assert prepared.kept.tolist() == [0, 5]
    reasons = dict(prepared.rejections)
    assert sorted(reasons) == [1, 2, 3, 4]
    assert "3 frames; expected 2" in reasons[1]
    assert "8-bit" in reasons[2]
    assert "(frames, height, width" in reasons[3]
    assert "minimum is 8" in reasons[4]


def test_an_empty_batch_gives_no_inputs() -> None:
    assert VideoPreprocessor(SPEC).prepare([]).inputs.shape == (0, 2, 32, 64, 3)


def test_a_clip_of_one_frame_is_no_clip() -> None:
    with pytest.raises(DataError, match="clip_frames"):
        VideoPreprocessor(SPEC.model_copy(update={"window_length": 1}))
