"""Scores of clips are pooled from those of their places."""

import torch

from cloud.methods.clip_pooling import clip_scores


def test_the_score_is_the_mean_of_the_higher_half() -> None:
    scores = torch.tensor([[1.0, 4.0, 2.0, 6.0], [9.0, 0.0, 0.0, 1.0]])
    torch.testing.assert_close(clip_scores(scores), torch.tensor([5.0, 5.0]))
    torch.testing.assert_close(clip_scores(torch.tensor([[3.0]])), torch.tensor([3.0]))


def test_low_places_do_not_change_the_score() -> None:
    scores = torch.arange(10.0)[None]
    lowered = scores.clone()
    lowered[0, :5] -= 100.0
    assert clip_scores(scores) == clip_scores(lowered)
