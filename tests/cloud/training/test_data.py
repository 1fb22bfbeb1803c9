"""Tables and arrays of training data: labels, times, splits."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cloud.training.data import TableData
from cloud.training.modalities import load_training_data
from cloud.training.samples.images import ImageData
from cloud.training.settings import DataSettings
from shared.errors import DataError
from shared.images import encode_png
from shared.modality import Modality


def table(rows: int = 60) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    return pd.DataFrame({"flow": generator.normal(size=rows), "valve": generator.integers(0, 9, rows)})


def load(path: Path, modality: Modality = Modality.TABULAR, **settings: object) -> TableData:
    data = load_training_data(path, modality, DataSettings.model_validate(settings))
    assert isinstance(data, TableData)
    return data


def as_csv(frame: pd.DataFrame, folder: Path) -> Path:
    path = folder / "readings.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_label_and_time_columns_are_found_and_excluded(tmp_path: Path, suffix: str) -> None:
    frame = table().assign(Anomaly=np.arange(60) % 10 == 0, timestamp=np.arange(60))
    path = tmp_path / f"readings.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    data = load(path)
    assert data.columns == ("flow", "valve")
    assert data.labels is not None
    assert np.count_nonzero(data.labels) == 6
    assert any("'Anomaly' is taken as the label" in note for note in data.notes)


@pytest.mark.parametrize("name", ["y", "Target"])
def test_a_second_axis_is_no_label_and_a_class_is(tmp_path: Path, name: str) -> None:
    axis = load(as_csv(table().assign(**{name: np.random.default_rng(1).normal(size=60)}), tmp_path))
    assert axis.columns == ("flow", "valve", name)
    assert axis.labels is None
    classes = load(as_csv(table().assign(**{name: np.arange(60) % 3}), tmp_path))
    assert classes.columns == ("flow", "valve")
    assert classes.labels is not None
    assert np.count_nonzero(classes.labels) == 40


def test_label_words_and_a_named_label_column(tmp_path: Path) -> None:
    path = as_csv(table().assign(state=["normal", "leak"] * 30), tmp_path)
    data = load(path, label_column="state", columns=("valve",))
    assert data.columns == ("valve",)
    assert data.labels is not None
    assert data.labels.tolist() == [False, True] * 30


def test_npz_of_rows_with_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", X=np.arange(80.0).reshape(40, 2), y=np.arange(40) > 30)
    data = load(tmp_path / "rows.npz")
    assert data.rows.shape == (40, 2)
    assert data.labels is not None
    assert np.count_nonzero(data.labels) == 9


def test_npz_of_a_univariate_series(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", train=np.arange(50.0), test=np.arange(30.0), label=np.arange(30) == 7)
    data = load(tmp_path / "s.npz", Modality.SERIES)
    assert data.columns == ("channel1",)
    assert data.test_rows is not None
    assert data.test_rows.shape == (30, 1)


BAD_TABLES = {
    "not a number": (lambda f: f.assign(flow=["x"] * len(f)), {}, "row 1, column 'flow': 'x' is not a number"),
    "NaN": (lambda f: f.assign(flow=f.flow.where(f.index != 4)), {}, "row 5, column 'flow' is NaN or missing"),
    "infinite": (lambda f: f.assign(flow=f.flow.where(f.index != 4, np.inf)), {}, "row 5, column 'flow' is inf"),
    "too large to travel": (lambda f: f.assign(flow=1e300), {}, "and 59 other rows"),
    "constant": (lambda f: f.assign(flow=1, valve=2), {}, "constant"),
    "no such column": (lambda f: f, {"columns": ("flwo",)}, "did you mean 'flow'"),
    "no such label": (lambda f: f, {"label_column": "truth"}, "--label-column"),
    "empty label": (lambda f: f.assign(label=np.where(f.index == 2, np.nan, 0)), {}, "row 3, label column 'label'"),
    "all anomalous": (lambda f: f.assign(label=1), {}, "no usable normal rows"),
    "no rows": (lambda f: f.iloc[:0], {}, "no rows"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_is_a_one_line_error_with_cause_and_place(tmp_path: Path, name: str) -> None:
    change, settings, expected = BAD_TABLES[name]
    with pytest.raises(DataError) as caught:
        load(as_csv(change(table()), tmp_path), **settings)
    assert expected in str(caught.value)
    assert "readings.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_rows_can_be_dropped_with_a_note(tmp_path: Path) -> None:
    path = as_csv(table().assign(flow=lambda f: f.flow.where(f.index != 4)), tmp_path)
    data = load(path, bad_rows="drop")
    assert np.flatnonzero(~data.usable).tolist() == [4]
    assert "1 rows with NaN" in " ".join(data.notes)


def test_readings_out_of_order_are_refused(tmp_path: Path) -> None:
    path = as_csv(table().assign(time=[*range(30), *range(30)]), tmp_path)
    with pytest.raises(DataError, match="row 31 is earlier"):
        load(path, Modality.SERIES)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x00\x01\x02"])
@pytest.mark.parametrize("suffix", ["csv", "npz", "parquet"])
def test_damaged_files_are_data_errors(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"readings.{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match="readings"):
        load(path)


def test_a_pickle_inside_an_npz_is_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", X=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"rows\.npz"):
        load(tmp_path / "rows.npz")


def test_missing_arrays_missing_paths_and_unknown_suffixes_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", data=np.ones(3))
    with pytest.raises(DataError, match="no array 'X' but data"):
        load(tmp_path / "rows.npz")
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="a folder"):
        load(tmp_path)
    (tmp_path / "rows.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"not \.xlsx"):
        load(tmp_path / "rows.xlsx")


def put_images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        (folder / f"{index}.png").write_bytes(encode_png(np.full((16, 16, 1), index, dtype=np.uint8)))


def test_images_flat_and_in_the_mvtec_layout(tmp_path: Path) -> None:
    put_images(tmp_path / "flat", 3)
    flat = load_training_data(tmp_path / "flat", Modality.IMAGE)
    assert isinstance(flat, ImageData)
    assert len(flat.good) == 3
    for part, count in {"train/good": 4, "test/good": 2, "test/crack": 3}.items():
        put_images(tmp_path / "mvtec" / part, count)
    data = load_training_data(tmp_path / "mvtec", Modality.IMAGE)
    assert isinstance(data, ImageData)
    assert len(data.good) == 4
    assert data.test_labels is not None
    assert data.test_labels.tolist() == [True] * 3 + [False] * 2


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no images .* in a folder good or normal or ok"):
        load_training_data(tmp_path, Modality.IMAGE)


def test_a_parquet_file_with_index_text_and_times(tmp_path: Path) -> None:
    frame = table().assign(state=["idle", "run"] * 30, at=pd.date_range("2025-10-24", periods=60, freq="min", tz="UTC"))
    frame.index = pd.Index(range(100, 160), name=None).astype(float)
    frame.to_parquet(tmp_path / "r.parquet")
    data = load(tmp_path / "r.parquet", categories="one_hot")
    assert data.columns == ("flow", "valve", "state=idle", "state=run")
    np.testing.assert_array_equal(data.rows[:, 3], np.arange(60) % 2)
    assert data.categories == {"state": ("idle", "run")}
    with pytest.raises(DataError, match="--one-hot"):
        load(tmp_path / "r.parquet")


def test_names_in_an_npz_file_are_the_channels(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "rows.npz", X=np.random.default_rng(0).normal(size=(40, 2)), channels=np.array(["heat", "load"])
    )
    assert load(tmp_path / "rows.npz").columns == ("heat", "load")


def test_columns_that_count_rows_or_time_are_excluded_unless_named(tmp_path: Path) -> None:
    frame = table().assign(number=np.arange(7, 67), t_ms=1_750_000_000_000 + 1000 * np.arange(60))
    data = load(as_csv(frame, tmp_path))
    assert data.columns == ("flow", "valve")
    assert any("'number' rises by one" in note for note in data.notes)
    assert any("'t_ms' is taken as the time" in note for note in data.notes)
    assert load(as_csv(frame, tmp_path), columns=("flow", "number")).columns == ("flow", "number")


def test_a_named_input_is_never_used_as_labels(tmp_path: Path) -> None:
    path = as_csv(table().assign(target=np.arange(60) % 2), tmp_path)
    assert load(path).labels is not None
    named = load(path, columns=("flow", "target"))
    assert named.columns == ("flow", "target")
    assert named.labels is None


def test_date_and_time_columns_are_combined_and_daylight_saving_is_noted(tmp_path: Path) -> None:
    minutes = [*range(60, 180, 4), *range(120, 240, 4)]
    frame = table().assign(date="2025-10-26", time=[f"{minute // 60:02}:{minute % 60:02}:00" for minute in minutes])
    data = load(as_csv(frame, tmp_path), Modality.SERIES)
    assert data.columns == ("flow", "valve")
    assert any("daylight saving" in note for note in data.notes)
