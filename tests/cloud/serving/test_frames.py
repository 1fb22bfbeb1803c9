"""Tests of the share of each frame in the anomaly of a clip."""

import numpy as np
import pytest

from cloud.serving.frames import clips_of_earlier_frames, frame_shares


def test_each_earlier_frame_ends_a_separate_clip() -> None:
    clips = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3, 1, 1, 1) + np.zeros((1, 1, 2, 2, 3), np.uint8)
    earlier = clips_of_earlier_frames(clips)
    assert earlier.shape == (4, 3, 2, 2, 3)
    assert earlier[..., 0, 0, 0].tolist() == [[0, 0, 0], [0, 0, 1], [3, 3, 3], [3, 3, 4]]


def test_the_anomalous_frame_has_the_largest_share() -> None:
    (odd, calm) = frame_shares(np.array([[0.5, 1e-6, 0.5], [1.0, 1.0, 1.0]]))
    assert [name for name, _ in odd] == ["frame 1", "frame 2", "frame 3"]
    assert dict(odd)["frame 2"] > 0.8
    assert sum(share for _, share in odd) == pytest.approx(1)
    assert [share for _, share in calm] == pytest.approx([1 / 3] * 3)


def test_a_p_value_of_zero_gives_finite_shares() -> None:
    ((first, second),) = frame_shares(np.array([[0.0, 0.9]]))
    assert first[1] + second[1] == pytest.approx(1)
    assert first[1] > second[1]
