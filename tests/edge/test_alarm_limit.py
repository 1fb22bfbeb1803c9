"""The warning that the calibration of a bundle does not resolve the alarm threshold."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.operation.inspection import read_status, status_lines
from edge.routing.alarm_limit import MAX_EXTRAPOLATION, AlarmLimit
from edge.screener import CalibrationResolution
from shared.calibration_modes import CalibrationByMode
from tests.edge.bundles import normal_rows
from tests.edge.device import Device, get, write_csv

SMALL = CalibrationResolution(held_out=20, has_tail=True, by_mode=False, assumed_per_day=0.0)


def test_the_sentence_has_all_figures() -> None:
    assert AlarmLimit(1.0, 1.0, "images").warning(SMALL) == (
        "20 held-out images resolve 1 in 21, but 1 false alarm a day at 1 image a second is 1 in 86,400, so even a "
        "clear defect may raise no alarm: train with more normal images (about 86,400 held out), or raise "
        "router.false_alarms_per_day and accept 4200 a day"
    )
    flat = CalibrationResolution(held_out=49, has_tail=False, by_mode=True, assumed_per_day=1440.0)
    text = AlarmLimit(2.0, 0.0, "rows").warning(flat)
    assert text.startswith("49 held-out rows of the operating mode with the fewest resolve 1 in 50, but 2 false alarms")
    assert "at 1 row a minute (assumed in training; not measured here yet) is 1 in 720, so no" in text
    given = dataclasses.replace(flat, is_assumed=False)
    text = AlarmLimit(2.0, 0.0, "rows").warning(given)
    assert "at 1 row a minute (the rate of training; not measured here yet) is 1 in 720" in text


@given(
    held_out=st.integers(20, 5000),
    rate_per_s=st.floats(1e-4, 1e4),
    wanted=st.floats(0.01, 1e4),
)
def test_the_accepted_number_a_day_ends_the_warning(held_out: int, rate_per_s: float, wanted: float) -> None:
    resolution = CalibrationResolution(held_out, has_tail=True, by_mode=False, assumed_per_day=0.0)
    text = AlarmLimit(wanted, rate_per_s, "windows").warning(resolution)
    threshold = wanted / (rate_per_s * 86_400)
    assert bool(text) == (threshold * MAX_EXTRAPOLATION < (1 - 1e-9) / (held_out + 1))
    if text:
        accepted = re.search(r"accept (\S+) a day", text)
        assert accepted is not None
        assert AlarmLimit(float(accepted[1]), rate_per_s, "windows").warning(resolution) == ""


def test_no_wanted_alarms_and_an_unknown_rate_need_nothing() -> None:
    assert AlarmLimit(0.0, 1.0, "images").warning(SMALL) == ""
    assert AlarmLimit(1.0, 0.0, "images").warning(SMALL) == ""


def test_the_mode_with_the_fewest_held_out_samples_decides() -> None:
    scores = np.random.default_rng(0).gumbel(size=430)
    calibration = CalibrationByMode.fit(scores, np.repeat([0, 1], [400, 30]))
    assert len(calibration.coarsest.scores) == 30


@pytest.mark.system
def test_a_device_that_sends_nothing_warns_and_counts_the_suspicious(device: Device) -> None:
    source = device.settings["sources"][0]
    write_csv(Path(source["path"]), np.add(normal_rows(400, seed=3), [3.0, 1.5, 30.0]))  # odd, but no alarms
    source |= {"rate_per_s": 20, "stop_after_s": 1}
    device.settings["metrics"] = {"address": "127.0.0.1:0"}
    device.start()
    device.until(lambda: device.counters().get("samples_held", 0) > 5)
    text = "500 held-out rows resolve 1 in 501, but 1 false alarm a day at 20 rows a second is 1 in 1,730,000"
    code, answer = get(device.status()["metrics_address"], "/health")
    assert code == 503
    assert [problem for problem in json.loads(answer)["problems"] if f"source plant: {text}" in problem]
    status = read_status(device.state)
    held = status.counters.samples_held
    assert f"held     {held} suspicious, kept here: mode edge_only" in list(status_lines(status))
    assert device.terminate() == 0
    assert device.text().count("event=alarms_not_resolved") == 1
    device.settings["router"]["false_alarms_per_day"] = 3500  # as the warning says
    device.start()
    device.until(lambda: device.counters()["samples_alarmed"] > 5)
    assert device.terminate() == 0
    assert "accept 3500 a day" in device.text()
    assert device.text().count("event=alarms_not_resolved") == 1
