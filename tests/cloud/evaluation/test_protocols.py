"""Discovery of data sets and their splits."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from cloud.evaluation.baselines import KNN, baseline_scores
from cloud.evaluation.protocols import PUBLISHED, WITHOUT_BOOTSTRAP, adbench_split, find_sets, image_split, series_split
from cloud.evaluation.published import BEST, published_figures
from cloud.metrics import auroc
from shared.errors import DataError, SettingsError

REAL = Path(os.environ.get("VEDETTE_BENCH_DATA", Path(__file__).parents[4] / "shared" / "data"))


def save(path: Path, rows: int, anomalies: int) -> Path:
    """Write rows that contain their own index; the last rows are anomalies."""
    labels = np.zeros(rows, dtype=int)
    labels[rows - anomalies :] = 1
    np.savez(path, X=np.column_stack([np.arange(rows), np.arange(rows)]), y=labels)
    return path


def test_the_first_half_of_the_normal_rows_in_file_order_trains(tmp_path: Path) -> None:
    split = adbench_split(save(tmp_path / "a.npz", 1200, 200), PUBLISHED, seed=3)
    assert split.train[:, 0].tolist() == list(range(500))
    assert split.test[:, 0].tolist() == list(range(500, 1200))
    assert split.labels.sum() == 200


def test_small_sets_are_bootstrapped_and_large_ones_thinned_by_the_seed(tmp_path: Path) -> None:
    small = save(tmp_path / "small.npz", 90, 10)
    split = adbench_split(small, PUBLISHED, seed=0)
    assert len(split.train) + len(split.test) == 1000
    assert set(split.train[:, 0]) & set(split.test[:, 0])  # leak of the bootstrap, absent without it
    other = adbench_split(small, PUBLISHED, seed=1)
    assert len(other.train) != len(split.train) or not np.array_equal(other.train, split.train)
    np.testing.assert_array_equal(adbench_split(small, PUBLISHED, seed=0).train, split.train)
    honest = adbench_split(small, WITHOUT_BOOTSTRAP, seed=0)
    assert not set(honest.train[:, 0]) & set(honest.test[:, 0])
    assert len(honest.train) == 40

    large = adbench_split(save(tmp_path / "large.npz", 60_000, 600), PUBLISHED, seed=0)
    assert len(large.train) + len(large.test) == 50_000
    assert len(np.unique(np.concatenate([large.train, large.test])[:, 0])) == 50_000


def test_sets_are_found_in_every_layout_and_by_any_spelling(
    tables: Path, series_folder: Path, image_folder: Path
) -> None:
    assert [item.name for item in find_sets("adbench", tables)] == ["broken", "large", "small"]
    assert [item.path.name for item in find_sets("adbench", tables, ["7_SMALL", "small"])] == ["7_small.npz"]
    assert [item.name for item in find_sets("series", series_folder)] == ["pump"]
    for folder in (image_folder, image_folder / "tiles"):
        assert [item.name for item in find_sets("images", folder)] == ["tiles"]
    with pytest.raises(SettingsError, match=r"no 'smal'.*small"):
        find_sets("adbench", tables, ["smal"])
    with pytest.raises(DataError, match="train, test and label"):
        find_sets("series", tables)
    with pytest.raises(DataError, match="no such folder"):
        find_sets("images", tables / "absent")


def test_two_files_of_one_name_are_two_sets(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "same.npz", 100, 10)
    assert [item.name for item in find_sets("adbench", tmp_path)] == ["a/same", "b/same"]
    assert len(find_sets("adbench", tmp_path, ["b/same"])) == 1


def test_unusable_sets_are_reported(tmp_path: Path, tables: Path) -> None:
    with pytest.raises(DataError, match="0 for normal and 1 for anomalous"):
        adbench_split(tables / "broken.npz", PUBLISHED, 0)
    with pytest.raises(DataError, match="too few"):
        adbench_split(save(tmp_path / "none.npz", 1000, 0), PUBLISHED, 0)
    np.savez(tmp_path / "s.npz", train=np.ones((9, 2)), test=np.ones((9, 3)), label=np.ones(9))
    with pytest.raises(DataError, match="2 channels and 'test' has 3"):
        series_split(tmp_path / "s.npz")


def test_images_come_with_labels_and_masks_and_train_on_nothing_of_the_test_part(image_folder: Path) -> None:
    split = image_split(image_folder / "tiles")
    assert len(split.train.good) == 44
    assert split.train.test == ()
    assert split.labels.sum() == 8
    defective = [mask.name for mask, label in zip(split.masks, split.labels, strict=True) if label and mask]
    assert defective == [f"{index:03d}_mask.png" for index in range(8)]
    assert not any(mask for mask, label in zip(split.masks, split.labels, strict=True) if not label)


def test_sets_of_one_name_stay_apart_and_an_equal_name_comes_first(tmp_path: Path) -> None:
    for name in ("line-1-12", "line-11-2", "泵", "压机"):
        save(tmp_path / f"{name}.npz", 20, 2)
    for name in ("line-1-12", "line-11-2", "泵", "压机"):
        assert [item.name for item in find_sets("adbench", tmp_path, [name, name])] == [name]
    for family in ("adbench", "smd"):
        (tmp_path / "all" / family).mkdir(parents=True)
    save(tmp_path / "all" / "adbench" / "pump.npz", 20, 2)
    readings = np.arange(40.0)
    np.savez(tmp_path / "all" / "smd" / "pump.npz", train=readings, test=readings, label=readings > 30)
    assert [item.name for item in find_sets("labels", tmp_path / "all")] == ["adbench/pump", "smd/pump"]


def test_published_figures_may_have_gaps(tmp_path: Path) -> None:
    reference = tmp_path / "reference"
    reference.mkdir()
    rows = [["dataset", "KNN", "DTE-NP"], ["wine", "99", "-"], ["glass", "90", "80"], ["", "1", "1"], ["yeast", "", ""]]
    with (reference / "dte_adbench_semi_supervised_auroc.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = published_figures("adbench", tmp_path, ["wine", "glass", "yeast"])
    assert found is not None
    assert set(found.sets) == {"wine", "glass"}
    assert found.sets["wine"] == {"KNN": 0.99, BEST: 0.99}
    assert found.mean == pytest.approx({"KNN": 0.945, BEST: 0.945})


def test_published_figures_are_found_next_to_the_data(tmp_path: Path) -> None:
    reference = tmp_path / "reference"
    reference.mkdir()
    with (reference / "dte_adbench_semi_supervised_auroc.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["dataset", "KNN", "DTE-NP"], ["pageblocks", "90", "80"], ["wine", "99", "98"]])
    found = published_figures("adbench", tmp_path / "data" / "adbench", ["PageBlocks", "mine"])
    assert found is not None
    assert found.sets == {"PageBlocks": {"KNN": 0.9, "DTE-NP": 0.8, BEST: 0.9}}
    assert found.mean[BEST] == pytest.approx(0.9)
    assert not found.mean_auprc  # published for the 30 sets together
    assert published_figures("adbench", tmp_path / "data", ["mine"]) is None
    assert published_figures("adbench", Path("/"), ["wine"]) is None


@pytest.mark.data
@pytest.mark.parametrize("name", ["thyroid", "yeast", "letter"])
def test_knn_under_the_protocol_has_the_published_figure(name: str) -> None:
    if not (REAL / "adbench").is_dir():
        pytest.skip("the data sets are not here: set VEDETTE_BENCH_DATA")
    (item,) = find_sets("adbench", REAL, [name])
    split = adbench_split(item.path, PUBLISHED, seed=0)
    published = published_figures("adbench", REAL, [item.name])
    assert published is not None
    ours = auroc(split.labels, baseline_scores(split.train, split.test)[KNN])
    assert ours == pytest.approx(published.sets[item.name]["KNN"], abs=1.01e-4)
