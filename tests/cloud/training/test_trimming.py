"""Contaminated samples are trimmed from the training part."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cloud.training.samples import Split
from cloud.training.trimming import MAX_REFERENCE, likely, trimmed
from shared.bundle import InputSpec
from shared.errors import SettingsError
from shared.modality import Modality

SPEC = InputSpec(channels=tuple("abcde"))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def split_of(train: NDArray[np.float64], spec: InputSpec = SPEC) -> Split:
    return Split(spec, train, train[:30], None, None, ("as read",))


@pytest.mark.parametrize("clustered", [False, True])
def test_scattered_and_clustered_contamination_is_trimmed(clustered: bool) -> None:
    rng = np.random.default_rng(1)
    normal = rng.normal(size=(900, 5))
    odd = 4.0 + 0.05 * rng.normal(size=(100, 5)) if clustered else rng.uniform(-12, 12, size=(100, 5))
    vectors = torch.from_numpy(np.concatenate([normal, odd]))
    kept = likely(vectors, 0.1, seeded())
    assert len(kept) == 900
    assert (kept >= 900).mean() < (0.005 if clustered else 0.02)


def test_five_neighbours_are_too_few_for_a_cluster() -> None:
    """Show the need for many neighbours: in a tight cluster the fifth nearest neighbour is in the cluster."""
    rng = np.random.default_rng(2)
    rows = torch.from_numpy(np.concatenate([rng.normal(size=(900, 5)), 4.0 + 0.05 * rng.normal(size=(100, 5))]))
    fifth = torch.cdist(rows, rows).kthvalue(6, dim=1).values
    assert (fifth.argsort()[:900] >= 900).sum() == 100


def test_only_the_training_part_changes_with_a_note() -> None:
    train = np.random.default_rng(3).normal(size=(200, 5))
    before = split_of(train)
    after = trimmed(before, Modality.TABULAR, 0.1, seeded())
    assert len(after.train) == 180
    assert after.held_out is before.held_out
    assert after.notes == ("as read", "20 of 200 training samples, the least likely, were left out")
    order = [int(np.flatnonzero((train == row).all(axis=1))[0]) for row in after.train]
    assert order == sorted(order)
    assert trimmed(before, Modality.TABULAR, 0.0, seeded()) is before


def test_windows_are_trimmed() -> None:
    rng = np.random.default_rng(4)
    spec = InputSpec(channels=("x", "y"), window_length=8)
    windows = np.sin(np.arange(8)[:, np.newaxis] + rng.uniform(0, 6, size=(300, 1, 2))) + 0.05 * rng.normal(
        size=(300, 8, 2)
    )
    windows[:15] += rng.normal(size=(15, 8, 2))
    after = trimmed(split_of(windows, spec), Modality.SERIES, 0.05, seeded())
    assert len(after.train) == 285
    assert sum(any(np.array_equal(row, odd) for odd in windows[:15]) for row in after.train) <= 2


def test_a_rare_mode_is_not_an_anomaly() -> None:
    rng = np.random.default_rng(5)
    spec = InputSpec(channels=(*"abc", "mode"), mode_channel="mode", modes=(0.0, 1.0))
    mode = np.arange(1000) < 50
    rows = np.column_stack([rng.normal(size=(1000, 3)) + 9.0 * mode[:, np.newaxis], mode])
    after = trimmed(split_of(rows, spec), Modality.TABULAR, 0.1, seeded())
    assert np.count_nonzero(after.train[:, 3]) == 45
    assert len(after.train) == 900


def test_few_rows_are_kept_and_many_are_sampled() -> None:
    rng = np.random.default_rng(6)
    assert len(likely(torch.from_numpy(rng.normal(size=(22, 3))), 0.3, seeded())) == 20
    assert len(likely(torch.from_numpy(rng.normal(size=(5, 3))), 0.3, seeded())) == 5
    many = torch.from_numpy(rng.normal(size=(MAX_REFERENCE + 500, 2)))
    many[7] = 60.0
    kept = likely(many, 0.01, seeded())
    assert len(kept) == len(many) - 55
    assert 7 not in kept


def test_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="trim_share is for tabular and series data"):
        trimmed(split_of(np.zeros((30, 32, 32, 3))), Modality.IMAGE, 0.1, seeded())
