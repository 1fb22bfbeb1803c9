"""Tests of file sources: columns by name, windows, rates, rejections and one-line errors."""

import gzip
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.settings.sources import ImageFolderSettings, ReplaySettings
from edge.sources import open_source
from edge.sources import replay as replay_module
from edge.sources.base import Pacer
from shared.bundle import MAX_BATCH_SIZE, InputSpec
from shared.errors import BundleMismatchError, DataError
from shared.images import encode_png
from shared.modalities import sample_type
from shared.modality import Modality
from shared.samples import SampleBatch
from shared.tables import reader as tables_module

ROWS = InputSpec(channels=("b", "a"))
WINDOWS = InputSpec(channels=("a", "b"), window_length=5, window_stride=2)
IMAGES = InputSpec(image_height=32, image_width=32)


def batches(path: Path, modality: Modality = Modality.TABULAR, spec: InputSpec = ROWS, **more) -> list[SampleBatch]:
    of_kind, kind = (ImageFolderSettings, "images") if modality is Modality.IMAGE else (ReplaySettings, "replay")
    settings = of_kind(id="s", kind=kind, path=path, bundle=Path("b"), **more)
    return list(open_source(settings, modality, spec, threading.Event()).batches())


def values_of(found: list[SampleBatch]) -> np.ndarray:
    return np.concatenate([np.asarray(batch.values) for batch in found])


def origins_of(found: list[SampleBatch]) -> list[str]:
    return [origin for batch in found for origin in batch.origins]


def csv_of(path: Path, rows: np.ndarray, header: str = "a,x,b") -> Path:
    text = header + "\n" + "\n".join(",".join(f"{value:g}" for value in row) for row in rows) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["readings.csv", "readings.csv.gz"])
def test_columns_are_selected_by_name_in_the_bundle_s_order(tmp_path: Path, name: str) -> None:
    rows = np.arange(30.0).reshape(10, 3)
    found = batches(csv_of(tmp_path / name, rows), batch_size=4)
    assert [len(batch) for batch in found] == [4, 4, 2]
    np.testing.assert_array_equal(values_of(found), rows[:, [2, 0]])
    assert origins_of(found) == [f"{name}:{number}" for number in range(1, 11)]


def test_npz_columns_are_selected_by_name_or_checked_by_count(tmp_path: Path) -> None:
    rows = np.arange(20.0).reshape(10, 2)
    np.savez(tmp_path / "named.npz", X=rows, channels=np.array(["a", "b"]), y=np.zeros(10))
    np.testing.assert_array_equal(values_of(batches(tmp_path / "named.npz")), rows[:, ::-1])
    np.savez(tmp_path / "bare.npz", X=rows)
    np.testing.assert_array_equal(values_of(batches(tmp_path / "bare.npz")), rows)


@pytest.mark.parametrize(
    ("header", "words"),
    [("a,x,c", "lacks column 'b'"), ("a,b,b", "column 'b' appears more than once"), ("", "lacks column")],
)
def test_a_wrong_header_is_a_one_line_error(tmp_path: Path, header: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        batches(csv_of(tmp_path / "r.csv", np.ones((3, 3)), header))


def test_unusable_files_are_one_line_errors(tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", X=np.ones((3, 5)))
    np.savez(tmp_path / "other.npz", Z=np.ones((3, 2)))
    np.savez(tmp_path / "texts.npz", X=np.array([["x", "y"]]))
    np.savez(tmp_path / "objects.npz", X=np.array([{}, {}], dtype=object))
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    (tmp_path / "empty.csv").write_text("a,b\n")
    (tmp_path / "readings.xls").write_text("")
    expected = {
        "wide.npz": "5 columns",
        "other.npz": "no array X, test or values",
        "texts.npz": "holds no readings",
        "objects.npz": "not a readable NPZ",
        "broken.npz": "not a readable NPZ",
        "empty.csv": "holds no readings",
        "readings.xls": "reads .csv",
        "absent.csv": "no such file",
    }
    for name, words in expected.items():
        with pytest.raises(DataError, match=words):
            batches(tmp_path / name)


def test_cells_that_are_not_numbers_reject_only_their_row(tmp_path: Path) -> None:
    lines = ["a,b", "1,2", "n/a,2", "3", "", '"4",5', "6,1e60", "7,nan", "8,9"]
    (tmp_path / "r.csv").write_text("\n".join(lines) + "\n")
    found = batches(tmp_path / "r.csv")
    rejected = {item.origin: item.reason for batch in found for item in batch.rejections}
    assert set(rejected) == {"r.csv:2", "r.csv:3"}  # blank lines are not rows
    assert "'n/a'" in rejected["r.csv:2"]
    assert "missing" in rejected["r.csv:3"]
    # Infinite and NaN cells are numbers; the preprocessing decides about them.
    assert origins_of(found) == ["r.csv:1", "r.csv:5", "r.csv:6", "r.csv:7", "r.csv:8"]


@given(
    count=st.integers(0, 60),
    length=st.integers(1, 9),
    stride=st.integers(1, 12),
    chunk=st.sampled_from([1, 3, 7, 64]),
    max_values=st.sampled_from([0, 20, 1000]),
)
def test_windows_do_not_depend_on_the_chunk_size(
    tmp_path_factory: pytest.TempPathFactory, count: int, length: int, stride: int, chunk: int, max_values: int
) -> None:
    rows = np.arange(count * 2.0).reshape(count, 2)
    path = tmp_path_factory.mktemp("series") / "w.npz"
    np.savez(path, X=rows)
    spec = InputSpec(channels=("a", "b"), window_length=length, window_stride=stride)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables_module, "CHUNK_ROWS", chunk)
        patch.setattr(replay_module, "CHUNK_ROWS", chunk)
        patch.setattr(replay_module, "MAX_BUFFERED_VALUES", max_values)
        if count == 0:
            with pytest.raises(DataError):
                batches(path, Modality.SERIES, spec)
            return
        found = batches(path, Modality.SERIES, spec, batch_size=3)
    starts = range(0, count - length + 1, stride)
    assert origins_of(found) == [f"w.npz:{start + 1}" for start in starts]
    for window, start in zip(values_of(found) if found else [], starts, strict=True):
        np.testing.assert_array_equal(window, rows[start : start + length])


@pytest.mark.parametrize(("channels", "length", "stride"), [(2, 8, 4), (10, 20, 1), (15, 25, 2), (38, 32, 8)])
def test_batches_of_windows_are_full_until_the_end_of_the_file(
    tmp_path: Path, channels: int, length: int, stride: int
) -> None:
    names = tuple(f"c{number}" for number in range(channels))
    spec = InputSpec(channels=names, window_length=length, window_stride=stride)
    size = sample_type(Modality.SERIES).usual_batch_size(spec)
    np.savez(tmp_path / "long.npz", X=np.zeros((3 * size * stride + length, channels), np.float32))
    sizes = [len(batch) for batch in batches(tmp_path / "long.npz", Modality.SERIES, spec)]
    # The last windows that begin in a chunk need readings of the next one.
    assert all(found > size - length for found in sizes[:-1])
    assert sum(sizes) == 3 * size + 1
    assert len(sizes) <= 4


@pytest.mark.parametrize(("batch_size", "stride"), [(None, 16), (3000, 1), (4095, 1), (16, 300)])
def test_the_readable_part_of_a_truncated_file_is_screened(tmp_path: Path, batch_size: int | None, stride: int) -> None:
    rows = np.random.default_rng(0).normal(size=(30_000, 2))
    path = csv_of(tmp_path / "r.csv.gz", rows, "a,b")
    path.write_bytes(path.read_bytes()[:-50_000])
    spec = InputSpec(channels=("a", "b"), window_length=16, window_stride=stride)
    settings = ReplaySettings(id="s", kind="replay", path=path, bundle=Path("b"), batch_size=batch_size)
    source, found = open_source(settings, Modality.SERIES, spec, threading.Event()), []
    with pytest.raises(DataError, match="cannot be read further"):
        found.extend(source.batches())  # keeps the batches before the error
    chunks: list[tables_module.Chunk] = []
    with pytest.raises(DataError):
        chunks.extend(tables_module.open_table(path, ("a", "b")).chunks())
    count = sum(len(chunk.rows) for chunk in chunks)
    assert count > 4096
    assert sum(map(len, found)) == (count - 16) // stride + 1


def test_the_maximum_batch_size_is_that_of_the_graphs() -> None:
    (bound,) = [item.le for item in ReplaySettings.model_fields["batch_size"].metadata if hasattr(item, "le")]
    assert bound == MAX_BATCH_SIZE


def test_stored_windows_are_accepted_if_their_length_fits(tmp_path: Path) -> None:
    np.savez(tmp_path / "cut.npz", X=np.ones((7, 5, 2)))
    assert values_of(batches(tmp_path / "cut.npz", Modality.SERIES, WINDOWS)).shape == (7, 5, 2)
    np.savez(tmp_path / "long.npz", X=np.ones((7, 6, 2)))
    with pytest.raises(DataError, match="windows of 6 time points"):
        batches(tmp_path / "long.npz", Modality.SERIES, WINDOWS)


def test_a_loop_restarts_the_file_and_ends_at_the_time_limit(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "r.csv", np.ones((10, 3)))
    found = batches(path, loop=True, rate_per_s=400, stop_after_s=0.4, batch_size=8)
    assert 60 <= len(origins_of(found)) <= 161
    assert origins_of(found)[10] == "r.csv:1"


def test_the_rate_and_the_maximum_age_of_batches_are_kept(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "r.csv", np.ones((60, 3)))
    started_s = time.monotonic()
    found = batches(path, rate_per_s=120, max_batch_age_ms=50, batch_size=64)
    assert 0.45 < time.monotonic() - started_s < 1.5
    assert {len(batch) for batch in found} <= {6, 1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("rate_per_s", "batch_size", "expected"),
    [(0.0, None, 2048), (0.0, 16, 16), (50.0, None, 5), (50.0, 3, 3), (2.0, None, 1), (1e6, None, 2048)],
)
def test_the_batch_size_is_limited_by_the_rate_and_the_maximum_age(
    rate_per_s: float, batch_size: int | None, expected: int
) -> None:
    settings = ReplaySettings(
        id="s", kind="replay", path=Path("r.csv"), bundle=Path("b"), rate_per_s=rate_per_s, batch_size=batch_size
    )
    assert settings.batch_size_for(usual=2048) == expected


def test_a_source_that_fell_behind_does_not_burst() -> None:
    stop = threading.Event()
    pacer = Pacer(100.0, 10, 0.0, stop)
    assert pacer.wait(1)
    pacer._origin_s -= 60
    assert pacer.wait(1)
    started_s = time.monotonic()
    assert pacer.wait(10)
    assert time.monotonic() - started_s > 0.05


def test_stopping_ends_a_wait_at_once() -> None:
    stop = threading.Event()
    pacer = Pacer(0.01, 1, 0.0, stop)
    threading.Timer(0.1, stop.set).start()
    started_s = time.monotonic()
    assert not pacer.wait(1)
    assert time.monotonic() - started_s < 2


def test_images_keep_their_encoded_bytes_and_broken_ones_are_rejected(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 40, 50, 3)).astype(np.uint8)
    (tmp_path / "sub").mkdir()
    for number, picture in enumerate(pixels):
        (tmp_path / "sub" / f"{number}.png").write_bytes(encode_png(picture))
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "notes.txt").write_text("not an image")
    for rate in (0.0, 1000.0):
        found = batches(tmp_path, Modality.IMAGE, IMAGES, batch_size=2, rate_per_s=rate)
        assert origins_of(found) == [f"sub/{number}.png" for number in range(5)]
        decoded = [values for batch in found for values in batch.values]
        np.testing.assert_array_equal(np.array(decoded), pixels)
        assert [item.origin for batch in found for item in batch.rejections] == ["bad.png"]
        assert found[0].encoded is not None
        assert found[0].encoded[0] == (tmp_path / "sub" / "0.png").read_bytes()


def test_a_folder_without_images_and_a_wrong_kind_of_source_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains no image"):
        batches(tmp_path, Modality.IMAGE, IMAGES)
    with pytest.raises(DataError, match="no such folder"):
        batches(tmp_path / "nowhere", Modality.IMAGE, IMAGES)
    settings = ImageFolderSettings(id="s", kind="images", path=tmp_path, bundle=Path("b"))
    with pytest.raises(BundleMismatchError, match="screens tabular samples"):
        open_source(settings, Modality.TABULAR, ROWS, threading.Event())


def test_a_file_that_is_not_a_table_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(b"no gzip at all")
    (tmp_path / "b.csv.gz").write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + bytes(range(7, 200)))
    (tmp_path / "c.csv").write_text('"' + "x" * 200_000 + "\n1,2,3\n")
    np.save(tmp_path / "d.npy", np.zeros((3, 2)))
    (tmp_path / "d.npy").rename(tmp_path / "d.npz")
    np.savez(tmp_path / "e.npz", X=np.zeros((3, 2)), channels=np.array(["x", "a", "b"]))
    for name in ("a.csv.gz", "b.csv.gz", "c.csv", "d.npz", "e.npz"):
        with pytest.raises(DataError, match=name):
            batches(tmp_path / name)


def test_an_invalid_csv_line_rejects_only_itself(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "r.csv", np.arange(9).reshape(3, 3))
    with path.open("a") as file:
        file.write('"' + "x" * 200_000 + "\n")
    found = batches(path)
    assert len(values_of(found)) == 3
    assert sum(len(batch.rejections) for batch in found) == 1


def test_a_pipe_and_a_folder_named_like_images_are_rejected_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    found = batches(tmp_path, Modality.IMAGE, IMAGES)
    assert {rejection.origin for batch in found for rejection in batch.rejections} == {
        "pipe.png",
        "folder.png",
        "gone.png",
    }


def test_an_empty_cell_is_a_missing_value_if_the_bundle_allows_it(tmp_path: Path) -> None:
    path = tmp_path / "gaps.csv"
    path.write_text("a,x,b\n1,0,2\n,0,3\n4,0,NA\nbroken,0,5\n6\n")
    allowed = batches(path, spec=InputSpec(channels=("b", "a"), missing=True))
    np.testing.assert_array_equal(values_of(allowed), np.array([[2, 1], [3, np.nan], [np.nan, 4]], dtype=np.float32))
    assert [rejection.origin for batch in allowed for rejection in batch.rejections] == ["gaps.csv:4", "gaps.csv:5"]
    refused = batches(path)
    np.testing.assert_array_equal(values_of(refused), [[2, 1]])
    assert len([rejection for batch in refused for rejection in batch.rejections]) == 4


def test_parquet_columns_are_selected_by_name(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    columns = {"a": pa.array([1, 2, None] * 2000), "x": ["text"] * 6000, "b": pa.array([0.5, 1.5, 2.5] * 2000)}
    parquet.write_table(pa.table(columns), tmp_path / "r.parquet", row_group_size=1000)
    found = batches(tmp_path / "r.parquet", batch_size=4096)
    values = values_of(found)
    np.testing.assert_array_equal(values[:3], [[0.5, 1], [1.5, 2], [2.5, np.nan]])
    assert len(values) == 6000
    assert origins_of(found)[-1] == "r.parquet:6000"
    with pytest.raises(DataError, match="row 1, column 'x': 'text' is not a number"):
        batches(tmp_path / "r.parquet", spec=InputSpec(channels=("x", "a")))
    with pytest.raises(DataError, match="lacks column 'c'"):
        batches(tmp_path / "r.parquet", spec=InputSpec(channels=("c",)))
    whole = (tmp_path / "r.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        batches(tmp_path / "cut.parquet")
    damaged = bytearray(whole)
    damaged[200:2000] = b"x" * 1800
    (tmp_path / "damaged.parquet").write_bytes(damaged)
    with pytest.raises(DataError, match=r"damaged\.parquet"):
        batches(tmp_path / "damaged.parquet")
