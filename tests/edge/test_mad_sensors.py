"""A faulty sensor: each of its readings is screened, rejected or late and counted once; other sources continue."""

import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.settings.sources import StdinSettings
from edge.sources.base import Pacer
from edge.sources.stdin import StdinSource
from shared.bundle import InputSpec
from shared.modality import Modality
from tests.edge.bundles import normal_rows
from tests.edge.device import Device

ODD_CELLS = ("nan", "inf", "-inf", "1e400", "-1e39", "abc", "0x10", "n/a", "--5", "\x00", "1e", "12:30", '"')
STAMPS = st.one_of(
    st.sampled_from([0, 1, 1, 2, 5.5, -3, 1e9, 1e12, 1e18, "2026-01-01T00:00:00Z", "1999-12-31", ""]),
    st.floats(allow_nan=True),
    st.text(max_size=8),
    st.none(),
    st.booleans(),
)
VALUES = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-(10**400), 10**400),
    st.text(max_size=6),
    st.booleans(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
)


@given(st.lists(st.tuples(STAMPS, VALUES), max_size=60))
def test_of_each_line_becomes_one_row_one_rejection_or_one_late_reading(lines: list[tuple[Any, Any]]) -> None:
    data = "".join(json.dumps({"at": at, "heat": heat}) + "\n" for at, heat in lines).encode()
    settings = StdinSettings(id="line", kind="stdin", bundle=Path("b"), time_path="at")
    pacer = Pacer(0.0, 16, 0.0, threading.Event())
    source = StdinSource(settings, Modality.TABULAR, InputSpec(channels=("heat",)), pacer, io.BytesIO(data))
    batches = list(source.batches())
    rows, rejected = sum(map(len, batches)), sum(len(batch.rejections) for batch in batches)
    assert rows + rejected + source.health.skipped == len(lines)


@pytest.mark.system
def test_odd_cells_reject_their_row_in_a_table_and_in_a_file_that_grows(device: Device, tmp_path: Path) -> None:
    good = [",".join(map(str, row)) for row in normal_rows(200, seed=8).tolist()]
    lines, bad = [], 0
    for number, line in enumerate(good):
        lines.append(line)
        if number % 3 == 0:
            cells = line.split(",")
            cells[number % len(cells)] = ODD_CELLS[number // 3 % len(ODD_CELLS)]
            lines.append(",".join(cells))
            bad += 1
    lines += [good[0], good[0], "20", "20,5", ",,"]  # the same row again is a row, too
    good_count, bad = len(good) + 2, bad + 3
    text = "heat,load,flow\n" + "\n".join(lines) + "\n"
    table = device.settings["sources"][0]
    Path(table["path"]).write_text(text)
    (tmp_path / "growing.csv").write_text(text)
    device.settings["sources"].append(
        table | {"id": "log", "kind": "tail", "path": tmp_path / "growing.csv", "poll_s": 0.01}
    )
    device.start()
    device.until(lambda: device.counters().get("samples_screened", 0) >= 2 * good_count)
    assert device.terminate() == 0, device.text()
    counts = device.counters()
    assert (counts["samples_screened"], counts["samples_rejected"]) == (2 * good_count, 2 * bad)
    assert counts["samples_unscored"] == 0
    assert "Traceback" not in device.text()


def stdin_source(lines: list[dict[str, Any]], **settings: Any) -> StdinSource:
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    of = StdinSettings(id="line", kind="stdin", bundle=Path("b"), **settings)
    spec = InputSpec(channels=("heat", "load"), missing=True)
    return StdinSource(of, Modality.TABULAR, spec, Pacer(0.0, 16, 0.0, threading.Event()), io.BytesIO(data))


def test_a_sensor_two_days_ahead_is_named_and_its_readings_are_screened() -> None:
    ahead_s = time.time() + 2 * 86400
    source = stdin_source([{"at": ahead_s + step, "heat": 1, "load": 2} for step in range(5)], time_path="at")
    assert sum(map(len, source.batches())) == 5
    assert source.health.clock == "time stamps are 2 days ahead of the device's clock: set the sensor's clock"
    assert source.health.state == "running"
    right = stdin_source([{"at": time.time() + step, "heat": 1, "load": 2} for step in range(5)], time_path="at")
    assert sum(map(len, right.batches())) == 5
    assert right.health.clock == ""


def test_each_record_of_a_batched_line_is_screened_or_counted() -> None:
    tags = {"heat": {"name": "L1.heat"}, "load": {"name": "L1.load"}}
    values = [{"id": f"L1.{tag}", "v": 1.5, "t": 1_800_000_000 + step} for step in range(10) for tag in tags]
    values += [{"id": "L1.other", "v": 1, "t": 1_800_000_000}, {"id": "L1.heat", "v": "x", "t": 1_800_000_003}]
    paths = {"records_path": "values", "name_path": "id", "value_path": "v", "time_path": "t", "channels": tags}
    source = stdin_source([{"values": values}], **paths)
    batches = list(source.batches())
    assert sum(map(len, batches)) == 10
    assert all((batch.values == 1.5).all() for batch in batches if len(batch))
    assert sum(len(batch.rejections) for batch in batches) == 1
    assert source.health.left_out == {"name of no channel": 1}
