"""Tables of users in ../shared/cases: every way in reads the same values, or refuses with the same reason.

`test_contract.py` tests the same kinds on tables of its own.
"""

from pathlib import Path

import numpy as np
import pytest

from cloud.training.data import TableData
from cloud.training.modalities import load_training_data
from cloud.training.settings import DataSettings
from shared.errors import DataError
from shared.modality import Modality
from tests.shared.cases import case
from tests.shared.tables.test_contract import WAYS, Form

FOUR = ("temp", "pressure", "flow", "vibration")
POWER = ("power", "voltage")
READ = {
    "01-header-one-short/readings.csv": FOUR,
    "01-header-one-short/row_names.csv": FOUR,
    "02-decimal-comma/four.csv": FOUR,
    "02-decimal-comma/semicolon_point.csv": FOUR,
    "03-booleans/readings.csv": (*FOUR, "pump_on"),
    "04-index-and-names/readings.csv": FOUR,
    "04-index-and-names/spaces.csv": FOUR,
    "05-epoch-column/readings.csv": FOUR,
    "05-epoch-column/next_ten_minutes.csv": FOUR,
    "06-times/date_and_time.csv": POWER,
    "06-times/day_first_early.csv": POWER,
    "06-times/some_fractions.csv": POWER,
    "06-times/zulu.csv": POWER,
}


def form_of(name: str, channels: tuple[str, ...]) -> Form:
    """Return the table with its expected rows, read here by the simplest rules: the channels are the last cells."""
    text = case(name).read_text(encoding="utf-8")
    rows = []
    for line in text.splitlines()[1:]:
        cells = line.replace(",", ".").split(";") if ";" in line else line.strip(",").split(",")
        cells = ["1" if cell == "True" else "0" if cell == "False" else cell for cell in cells]
        rows.append([float(cell) for cell in cells[-len(channels) :]])
    return Form(text, rows, channels=channels, decimal="," if name.endswith("four.csv") else "")


@pytest.mark.parametrize("way", [name for name in WAYS if name != "tail by rows"])
@pytest.mark.parametrize("name", READ)
def test_a_table_of_a_case_is_read_alike_by_every_way_in(tmp_path: Path, name: str, way: str) -> None:
    form = form_of(name, READ[name])
    values, rejected = WAYS[way](form, tmp_path)
    assert not rejected
    np.testing.assert_allclose(values, np.array(form.expected), rtol=1e-6)


@pytest.mark.parametrize("way", ["training", "evaluate", "replay"])
def test_a_name_that_appears_twice_is_refused_by_training_and_devices(tmp_path: Path, way: str) -> None:
    text = case("04-index-and-names/twice.csv").read_text(encoding="utf-8")
    with pytest.raises(DataError, match="'temp' appears more than once"):
        WAYS[way](Form(text, channels=("temp", "pressure")), tmp_path)


@pytest.mark.parametrize("name", [name for name in READ if name.startswith("06")])
def test_the_times_of_a_case_are_the_order_of_a_series(name: str) -> None:
    path = case(name)
    for to_judge in (False, True):
        data = load_training_data(path, Modality.SERIES, DataSettings(), to_judge=to_judge)
        assert isinstance(data, TableData)
        assert data.columns == POWER
        assert data.usable.all()
