"""Tables that users of the field have: training, a device and `vedette evaluate` read the same values."""

import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from cloud.api.inputs import open_input
from cloud.training.data import TableData
from cloud.training.modalities import load_training_data
from cloud.training.settings import DataSettings
from edge.settings.sources import ReplaySettings
from edge.sources import open_source
from shared.bundle import InputSpec
from shared.errors import DataError, SettingsError
from shared.modality import Modality
from shared.tables.settings import TableSettings
from tests.cases import case

CASES = [
    ("01-header-one-short", "readings.csv", ("temp", "pressure", "flow", "vibration")),
    ("01-header-one-short", "row_names.csv", ("temp", "pressure", "flow", "vibration")),
    ("02-decimal-comma", "four.csv", ("temp", "pressure", "flow", "vibration")),
    ("02-decimal-comma", "semicolon_point.csv", ("temp", "pressure", "flow", "vibration")),
    ("03-booleans", "readings.csv", ("temp", "pressure", "flow", "vibration", "pump_on")),
    ("04-index-and-names", "readings.csv", ("temp", "pressure", "flow", "vibration")),
    ("04-index-and-names", "spaces.csv", ("temp", "pressure", "flow", "vibration")),
    ("05-epoch-column", "readings.csv", ("temp", "pressure", "flow", "vibration")),
    ("05-epoch-column", "next_ten_minutes.csv", ("temp", "pressure", "flow", "vibration")),
    *(("06-times", f"{name}.csv", ("power", "voltage")) for name in ("date_and_time", "day_first_early")),
    *(("06-times", f"{name}.csv", ("power", "voltage")) for name in ("some_fractions", "zulu")),
]


def train(path: Path, modality: Modality = Modality.TABULAR, **settings: object) -> TableData:
    data = load_training_data(path, modality, DataSettings.model_validate(settings))
    assert isinstance(data, TableData)
    return data


def replay(path: Path, data: TableData) -> NDArray[np.float32]:
    spec = InputSpec(channels=data.columns, decimal="," if data.decimal == "," else "")
    settings = ReplaySettings(id="pump", kind="replay", path=path, bundle=Path("b"))
    batches = list(open_source(settings, Modality.TABULAR, spec, threading.Event()).batches())
    assert not any(batch.rejections for batch in batches)
    return np.concatenate([np.asarray(batch.values) for batch in batches])


@pytest.mark.parametrize(("folder", "name", "columns"), CASES)
def test_a_table_is_read_alike_in_training_and_on_a_device(folder: str, name: str, columns: tuple[str, ...]) -> None:
    path = case(folder) / name
    for modality in (Modality.TABULAR, Modality.SERIES):
        data = train(path, modality)
        assert data.columns == columns
        assert len(data.rows) in (600, 1499)
    np.testing.assert_array_equal(replay(path, data), data.rows.astype(np.float32))


def test_a_doubled_name_is_refused_with_its_name() -> None:
    with pytest.raises(DataError, match="column 'temp' appears more than once"):
        train(case("04-index-and-names") / "twice.csv")


def readings(count: int = 200, **columns: object) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"flow": rng.normal(size=count), "load": rng.normal(size=count), **columns})


RISING = {
    "counter": np.arange(200) * 2 + 7,
    "energy_kwh": np.cumsum(np.random.default_rng(1).random(200) + 0.01),
    "uptime": np.arange(200) * 1.5,
    "remaining": 500 - np.arange(200),
    "row": np.arange(200),
    "epoch_ms": 1_750_000_000_000 + np.arange(200) * 1000,
}


@pytest.mark.parametrize("name", list(RISING))
@pytest.mark.parametrize("modality", [Modality.TABULAR, Modality.SERIES])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_column_that_rises_without_end_is_left_out_with_a_note(
    tmp_path: Path, name: str, modality: Modality, suffix: str
) -> None:
    path = tmp_path / f"readings.{suffix}"
    frame = readings(**{name: RISING[name]})
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    data = train(path, modality)
    assert data.columns == ("flow", "load")
    assert any(repr(name) in note for note in data.notes)
    if name != "epoch_ms":  # taken as the time
        assert train(path, modality, rising="keep").columns == ("flow", "load", name)
    assert train(path, modality, columns=["flow", name]).columns == ("flow", name)


def test_a_sorted_column_with_ties_and_a_short_table_stay(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    readings(step=np.arange(200) // 2).to_csv(path, index=False)
    assert train(path).columns == ("flow", "load", "step")
    readings(20, level=np.arange(20) * 0.5).to_csv(path, index=False)
    assert train(path).columns == ("flow", "load", "level")


@pytest.mark.parametrize(
    ("times", "dates"),
    [
        (pd.date_range("2025-10-24", periods=200, freq="2min").strftime("%d-%b-%Y %H:%M"), "%d-%b-%Y %H:%M"),
        (pd.date_range("2025-10-24", periods=200, freq="2min").strftime("%Y%m%d%H%M%S%z"), "%Y%m%d%H%M%S"),
        (pd.date_range("2025-10-24", periods=200, freq="2min").strftime("%d.%m.%y %H:%M"), "%d.%m.%y %H:%M"),
    ],
)
def test_a_format_of_dates_can_be_set(tmp_path: Path, times: pd.Index, dates: str) -> None:
    path = tmp_path / "readings.csv"
    readings(at=times).to_csv(path, index=False)
    data = train(path, Modality.SERIES, time_column="at", table={"dates": dates})
    assert data.columns == ("flow", "load")
    readings(at=times[::-1]).to_csv(path, index=False)
    with pytest.raises(DataError, match="is earlier than the row before it in 'at'"):
        train(path, Modality.SERIES, time_column="at", table={"dates": dates})
    with pytest.raises(DataError, match="cannot be read"):
        train(path, Modality.SERIES, time_column="at", table={"dates": "%H:%M only"})


def test_an_unknown_order_of_dates_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.toml"
    path.write_text('dates = "year_first"\n')
    with pytest.raises(SettingsError, match="must be auto, day_first, month_first, or a format"):
        TableSettings.load(path)


ZONED = {
    "Z": pd.date_range("2025-10-26", periods=200, freq="5min", tz="UTC").strftime("%Y-%m-%dT%H:%M:%SZ"),
    "across the clocks": [
        moment.isoformat() for moment in pd.date_range("2025-10-26", periods=200, freq="5min", tz="Europe/Berlin")
    ],
    "am and pm": pd.date_range("2025-10-26", periods=200, freq="5min").strftime("%m/%d/%Y %I:%M %p"),
}


@pytest.mark.parametrize("name", list(ZONED))
def test_times_with_zones_are_in_order(tmp_path: Path, name: str) -> None:
    path = tmp_path / "readings.csv"
    readings(timestamp=ZONED[name]).to_csv(path, index=False)
    data = train(path, Modality.SERIES)
    assert data.columns == ("flow", "load")
    assert not any("goes back" in note for note in data.notes)


def test_parquet_times_with_a_zone_are_in_order(tmp_path: Path) -> None:
    path = tmp_path / "readings.parquet"
    readings(timestamp=pd.date_range("2025-10-26", periods=200, freq="5min", tz="Europe/Berlin")).to_parquet(path)
    assert train(path, Modality.SERIES).columns == ("flow", "load")


def test_rows_have_the_same_number_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("flow,load\nbar,mm\n1,5\n\nbroken,6\n2,7\n")
    spec = InputSpec(channels=("flow", "load"))
    settings = ReplaySettings(id="pump", kind="replay", path=path, bundle=Path("b"))
    (batch,) = open_source(settings, Modality.TABULAR, spec, threading.Event()).batches()
    assert [*batch.origins, batch.rejections[0].origin] == ["rows.csv:2", "rows.csv:5", "rows.csv:4"]
    samples = next(open_input(path, Modality.TABULAR, spec).blocks)
    assert [sample.id for sample in samples if not sample.reason] == ["2", "5"]
    with pytest.raises(DataError, match="row 4, column 'flow': 'broken' is not a number"):
        train(path)


def test_scoring_and_evaluation_use_the_decimal_mark_of_the_bundle(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("flow;load\n1.234;5\n2.345;6\n")
    for decimal, flow in ((",", 1234.0), ("", 1.234)):
        spec = InputSpec(channels=("flow", "load"), decimal=decimal)
        scored = next(open_input(path, Modality.TABULAR, spec).blocks)
        assert scored[0].values is not None
        assert scored[0].values.tolist() == [flow, 5.0]
        settings = DataSettings().for_bundle(spec, path)
        data = load_training_data(path, Modality.TABULAR, settings, to_judge=True)
        assert isinstance(data, TableData)
        assert data.rows[0].tolist() == [flow, 5.0]
