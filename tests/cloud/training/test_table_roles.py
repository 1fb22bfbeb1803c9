"""Times, counters and formats of tables: what training takes as the time, what it leaves out, and how to decide it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cloud.training.data import TableData
from cloud.training.modalities import load_training_data
from cloud.training.settings import DataSettings
from shared.errors import DataError
from shared.modality import Modality

ROWS = 60


def table() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    return pd.DataFrame({"flow": generator.normal(size=ROWS), "valve": generator.integers(0, 9, ROWS)})


def saved(frame: pd.DataFrame, folder: Path, suffix: str = "csv") -> Path:
    path = folder / f"readings.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    return path


def load(path: Path, modality: Modality = Modality.SERIES, *, to_judge: bool = False, **settings: object) -> TableData:
    data = load_training_data(path, modality, DataSettings.model_validate(settings), to_judge=to_judge)
    assert isinstance(data, TableData)
    return data


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("columns", [(), ("flow", "valve")])  # training, and `vedette evaluate`
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns"])
def test_times_with_a_zone_are_read_across_a_change_of_the_clocks(
    tmp_path: Path, suffix: str, columns: tuple[str, ...], zone: str
) -> None:
    # Europe sets its clocks back on 26 October 2025 at 01:00 UTC.
    moments = pd.date_range("2025-10-26 00:00", periods=ROWS, freq="7min", tz="UTC").tz_convert(zone)
    data = load(saved(table().assign(recorded=moments), tmp_path, suffix), columns=columns, to_judge=bool(columns))
    assert data.columns == ("flow", "valve")
    assert data.usable.all()
    assert not any("daylight" in note for note in data.notes)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_a_parquet_file_keep_their_order_and_an_empty_one_is_named(tmp_path: Path, unit: str) -> None:
    moments = pd.Series(pd.date_range("2025-10-26", periods=ROWS, freq="s", tz="Europe/Berlin").as_unit(unit))
    assert load(saved(table().assign(at=moments), tmp_path, "parquet")).columns == ("flow", "valve")
    swapped = moments.copy()
    swapped[[4, 5]] = moments[[5, 4]]
    with pytest.raises(DataError, match="row 6 is earlier"):
        load(saved(table().assign(at=swapped), tmp_path, "parquet"))
    moments[7] = pd.NaT
    path = saved(table().assign(at=moments), tmp_path, "parquet")
    with pytest.raises(DataError, match="row 8, time column 'at' is empty"):
        load(path)
    assert np.flatnonzero(~load(path, bad_rows="drop").usable).tolist() == [7]


@pytest.mark.parametrize(
    ("dates", "times", "names"),
    [
        ("2025-10-24", "%H:%M:%S", ("date", "time")),
        ("24/10/2025", "%H:%M", ("Day", "Clock")),
        ("10/24/2025", "%I:%M %p", ("Date", "Time")),
        ("20251024", "%H:%M:%S", ("date", "hour")),
    ],
)
def test_a_date_and_a_time_of_day_are_one_time(tmp_path: Path, dates: str, times: str, names: tuple[str, str]) -> None:
    clock = pd.date_range("2025-10-24 11:30", periods=ROWS, freq="min").strftime(times)
    frame = table().assign(**{names[0]: dates, names[1]: clock})
    data = load(saved(frame, tmp_path))
    assert data.columns == ("flow", "valve")
    assert f"columns {names[0]!r} and {names[1]!r} are taken as the time" in data.notes
    named = load(saved(frame, tmp_path), time_column="+".join(names))
    assert named.columns == data.columns


def test_times_of_day_alone_pass_midnight(tmp_path: Path) -> None:
    clock = pd.date_range("2025-10-24 23:30", periods=ROWS, freq="min").strftime("%H:%M")
    data = load(saved(table().assign(time=clock), tmp_path))
    assert data.columns == ("flow", "valve")
    assert any("without a date" in note for note in data.notes)


def test_an_unusual_form_is_refused_with_the_option_that_reads_it(tmp_path: Path) -> None:
    moments = pd.date_range("2025-10-24 23:30", periods=ROWS, freq="min")
    path = saved(table().assign(timestamp=moments.strftime("%d|%m|%y %H.%M")), tmp_path)
    with pytest.raises(DataError, match=r"row 1, time column 'timestamp' cannot be read: .*table\.dates"):
        load(path)
    assert load(path, table={"dates": "%d|%m|%y %H.%M"}).columns == ("flow", "valve")
    compact = saved(table().assign(timestamp=moments.strftime("%Y%m%d%H%M")), tmp_path)
    assert load(compact, table={"dates": "%Y%m%d%H%M"}).columns == ("flow", "valve")


def test_a_wrong_order_of_day_and_month_is_named_and_can_be_set(tmp_path: Path) -> None:
    moments = pd.date_range("2025-11-10", periods=ROWS, freq="6h").strftime("%d.%m.%Y %H:%M")
    path = saved(table().assign(timestamp=moments), tmp_path)
    assert load(path).usable.all()
    with pytest.raises(DataError, match=r"set table\.dates"):
        load(path, table={"dates": "month_first"})


def test_rows_whose_time_is_unreadable_can_be_dropped(tmp_path: Path) -> None:
    times = [f"2025-10-24 10:{minute:02}" for minute in range(ROWS)]
    times[3], times[9] = "?", ""
    path = saved(table().assign(timestamp=times), tmp_path)
    with pytest.raises(DataError, match="row 4, time column 'timestamp' cannot be read: '\\?' is not a time"):
        load(path)
    assert np.flatnonzero(~load(path, bad_rows="drop").usable).tolist() == [3, 9]


COUNTERS = {
    "a number of the row": 3 + np.arange(ROWS),
    "an index in steps": 5 * np.arange(ROWS),
    "seconds since the start": 0.1 * np.arange(ROWS),
    "a meter": np.cumsum(np.random.default_rng(1).uniform(0.1, 2, ROWS)) + 812.5,
    "an epoch": 1_750_000_000 + np.arange(ROWS),
    "an epoch in ms": 1_750_000_000_000 + 1000 * np.arange(ROWS),
}


@pytest.mark.parametrize("modality", [Modality.TABULAR, Modality.SERIES])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("kind", COUNTERS)
def test_a_column_that_rises_in_every_row_is_reported_and_left_out(
    tmp_path: Path, kind: str, suffix: str, modality: Modality
) -> None:
    path = saved(table().assign(total=COUNTERS[kind]), tmp_path, suffix)
    data = load(path, modality)
    assert data.columns == ("flow", "valve")
    assert any("'total'" in note and "rises" in note for note in data.notes)
    kept = load(path, modality, rising="keep")
    assert kept.columns == ("flow", "valve", "total")
    np.testing.assert_array_equal(kept.rows[:, 2], COUNTERS[kind])
    assert load(path, modality, columns=("total", "flow")).columns == ("total", "flow")


def test_a_counter_with_gaps_is_left_out_and_one_that_starts_anew_is_an_input(tmp_path: Path) -> None:
    total = 10.0 * np.arange(ROWS)
    total[[4, 30]] = np.nan
    assert load(saved(table().assign(total=total), tmp_path), missing="allow").columns == ("flow", "valve")
    assert load(saved(table().assign(total=np.arange(ROWS) % 31), tmp_path)).columns == ("flow", "valve", "total")
    assert load(saved(table().assign(total=7.5), tmp_path)).columns == ("flow", "valve", "total")


def test_inputs_that_all_rise_are_kept_with_a_note(tmp_path: Path) -> None:
    data = load(saved(pd.DataFrame({"total": np.arange(ROWS) ** 2.0}), tmp_path))
    assert data.columns == ("total",)
    assert any("no other is an input" in note for note in data.notes)


def test_a_rising_column_of_an_npz_file_is_reported(tmp_path: Path) -> None:
    rows = np.column_stack([table()["flow"], 2.0 * np.arange(ROWS)])
    np.savez(tmp_path / "rows.npz", X=rows)
    data = load(tmp_path / "rows.npz", Modality.TABULAR)
    assert data.columns == ("x1", "x2")
    assert any("'x2' rises in every row" in note for note in data.notes)
    assert not load(tmp_path / "rows.npz", Modality.TABULAR, rising="keep").notes


def test_the_decimal_mark_of_the_training_table_decides_in_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    path.write_text("flow;valve\n1.234;3\n1.000;2\n")
    assert load(path, Modality.TABULAR, to_judge=True).rows[0, 0] == 1.234
    assert load(path, Modality.TABULAR, to_judge=True, decimal_hint=",").rows[0, 0] == 1234.0
