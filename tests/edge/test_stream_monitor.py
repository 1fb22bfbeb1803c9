"""Streams that are not as in training: when the monitor warns, what it names, the one warning for an alarm flood."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.routing.stream_monitor import StreamMonitor, StreamState, WatchedBatch, divergence
from shared.bundle import InputSpec
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from shared.preprocessing import ChannelRanges, TabularPreprocessor
from tests.edge.bundles import CHANNELS, normal_rows
from tests.edge.device import Device, write_csv

FORWARD_P = 0.05
ALARM_P = 1 / 1440  # one a day at one sample a minute
ROWS = InputSpec(channels=CHANNELS)


def ranges(rows: np.ndarray | None = None) -> ChannelRanges:
    found = fit_preprocessor(Modality.TABULAR, normal_rows(2000) if rows is None else rows, ROWS).ranges()
    assert found is not None
    return found


def monitor(spec: InputSpec = ROWS) -> StreamMonitor:
    return StreamMonitor("plant-1-00000000", spec, ranges(), FORWARD_P)


def batch(p_values: np.ndarray, values: np.ndarray | None = None, rate_per_s: float = 0.0) -> WatchedBatch:
    values = normal_rows(len(p_values)) if values is None else values
    return WatchedBatch(p_values <= FORWARD_P, p_values <= ALARM_P, ALARM_P, values, rate_per_s)


def shifted(count: int, by: list[float]) -> np.ndarray:
    """Normal rows with a constant added to each channel."""
    return normal_rows(count) + np.array(by)


def uniform(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(count)


def test_normal_streams_give_no_warning_whatever_their_batches() -> None:
    for size, seed in ((1, 0), (7, 1), (64, 2), (4096, 3)):
        of, p_values = monitor(), uniform(20_000 if size > 1 else 4000, seed)
        assert not any(of.observe(batch(p_values[start : start + size])) for start in range(0, len(p_values), size))


def test_a_calibration_that_is_off_by_a_factor_of_two_gives_no_warning() -> None:
    of = monitor()
    assert not any(of.observe(batch(uniform(50, seed) / 2)) for seed in range(200))


def test_a_day_of_other_readings_is_a_warning_with_the_channels_that_differ() -> None:
    of, hot = monitor(), shifted(283, [9.0, 0.0, 0.0])
    assert of.observe(batch(np.full(283, 1e-9), hot))
    text = of.warning
    assert text.startswith(
        "283 of 283 rows are alarms; the readings differ from the training data: heat 28.9 against 17.6 to 22.3"
    )
    assert "load" not in text
    of.observe(batch(np.full(17, 1e-9), hot[:17]))
    assert of.warning.startswith("300 of 300 rows are alarms")


def test_single_samples_of_an_alarm_flood_warn_within_twenty() -> None:
    of = monitor()
    changes = [of.observe(batch(np.array([1e-9]), normal_rows(1) * 2)) for _ in range(40)]
    assert changes.index(True) < 20
    assert sum(changes) == 1


def test_a_short_event_in_a_normal_stream_is_an_alarm_and_no_warning() -> None:
    of, p_values = monitor(), uniform(2000)
    p_values[1000:1030] = 1e-9
    assert not any(of.observe(batch(p_values[start : start + 10])) for start in range(0, 2000, 10))


def test_forwards_far_above_their_share_are_a_warning_without_any_alarm() -> None:
    of = monitor()
    assert any(of.observe(batch(np.where(uniform(10, seed) < 0.6, 0.04, 0.5))) for seed in range(20))
    assert "are suspicious (expected: at most 5 %)" in of.warning


def test_the_warning_ends_once_the_stream_matches_training_again() -> None:
    of = monitor()
    of.observe(batch(np.full(100, 1e-9), normal_rows(100) + 50))
    assert of.warning
    ended = [of.observe(batch(uniform(10, seed))) for seed in range(40)]
    assert sum(ended) == 1
    assert not of.warning
    assert of.episode.samples == 0


def test_overlapping_windows_count_for_less() -> None:
    few = np.where(uniform(40, 5) < 0.4, 0.03, 0.5)  # suspicious, no alarms
    windows = np.repeat(normal_rows(40)[:, np.newaxis], 8, axis=1)
    apart = InputSpec(channels=CHANNELS, window_length=8, window_stride=8)
    overlapping = InputSpec(channels=CHANNELS, window_length=8, window_stride=1)
    assert monitor(apart).observe(batch(few, windows))
    assert not monitor(overlapping).observe(batch(few, windows))


def test_memory_is_bounded_and_a_restart_goes_on() -> None:
    of = monitor()
    for _ in range(500):
        of.observe(batch(np.full(3, 1e-9), normal_rows(3) + 50, rate_per_s=100.0))
    state = StreamState.model_validate_json(of.state().model_dump_json())
    assert len(state.blocks) <= 20
    again = monitor()
    again.resume(state)
    assert again.warning == of.warning
    assert not again.observe(batch(np.full(3, 1e-9), normal_rows(3) + 50))  # the warning began earlier
    assert again.warning.startswith("1503 of 1503 rows are alarms; the readings differ")
    other = StreamMonitor("plant-2-11111111", ROWS, ranges(), FORWARD_P)
    other.resume(state)
    assert not other.warning


def test_a_fast_stream_is_judged_by_a_minute_not_by_two_hundred_rows() -> None:
    of = monitor()
    for seed in range(60):
        assert not of.observe(batch(uniform(1000, seed), rate_per_s=1000.0))
    assert not of.observe(batch(np.full(1000, 1e-9), normal_rows(1000) + 9, rate_per_s=1000.0))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (normal_rows(400) * [1, 1, 0] + [0, 0, 100], "flow stuck at 100"),
        (normal_rows(400) * [1, np.nan, 1], "load missing in 100% of the readings"),
        (shifted(400, [0.0, 1e38, 0.0]), "load 1e+38 against 3."),
        (normal_rows(400) * 3 - normal_rows(4000).mean(axis=0) * 2, "heat varies by 2.94 against 1.01"),
        (normal_rows(400), "though each channel is within its normal range"),
    ],
)
def test_the_way_in_which_a_channel_differs_is_named(values: np.ndarray, text: str) -> None:
    of = monitor()
    of.observe(batch(np.full(len(values), 1e-9), values.astype(np.float32)))
    assert text in of.warning


def test_a_constant_channel_is_not_named_for_its_rounding() -> None:
    rows = normal_rows(400)
    rows[:, 1] = 5.1
    sums_of = StreamMonitor("b", ROWS, ranges(rows), FORWARD_P)
    sums_of.observe(batch(np.full(400, 1e-9), rows.astype(np.float32)))
    assert "load" not in sums_of.warning


def test_images_are_named_without_figures() -> None:
    of = StreamMonitor("b", InputSpec(image_height=32, image_width=32), None, FORWARD_P)
    watched = WatchedBatch(np.ones(40, bool), np.ones(40, bool), ALARM_P, None, 0.0)
    assert of.observe(watched)
    assert of.warning.startswith("40 of 40 images are alarms; the images differ from the training data")


def test_a_limit_of_everything_is_never_exceeded() -> None:
    of = monitor()
    watched = WatchedBatch(np.ones(400, bool), np.ones(400, bool), 1.0, normal_rows(400), 0.0)
    assert not of.observe(watched)


def test_the_divergence_bounds_the_binomial_tail() -> None:
    rng = np.random.default_rng(0)
    for share in (0.2, 0.3):
        exact = float((rng.binomial(60, 0.1, 200_000) >= share * 60).mean())
        assert exact <= np.exp(-60 * divergence(share, 0.1))


def test_older_bundles_without_ranges_name_the_mean_with_two_deviations() -> None:
    found = TabularPreprocessor.from_arrays({"mean": np.zeros(3), "scale": np.ones(3)}, ROWS).ranges()
    assert found.low.tolist() == [-2.0] * 3


def of_device(device: Device) -> tuple[list[dict[str, Any]], str]:
    """Messages of the alarm file, and the log."""
    path = device.folder / "alarms.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()], device.text()


@pytest.mark.system
def test_an_alarm_flood_is_one_notice_in_the_sinks_the_log_and_the_status(device: Device) -> None:
    write_csv(Path(device.settings["sources"][0]["path"]), shifted(283, [9.0, 3.0, 0.0]))
    device.settings["alarms"] = [{"id": "log", "kind": "file", "path": device.folder / "alarms.jsonl"}]
    device.settings["router"] = {"mode": "edge_only", "false_alarms_per_day": 86400}
    device.settings["sources"][0] |= {"rate_per_s": 600, "batch_size": 16, "loop": True, "stop_after_s": 1.5}
    device.start()
    device.until(lambda: device.status().get("sources", {}).get("plant", {}).get("state") == "ended")
    device.until(lambda: (device.folder / "alarms.jsonl").exists())
    status = device.status()
    finding = status["sources"]["plant"]["finding"]
    assert "rows are alarms; the readings differ from the training data: heat 2" in finding
    assert f"source plant: {finding}" in status["problems"]
    assert any("source plant: ended" in problem for problem in status["problems"])
    device.until(lambda: "event=all_sources_ended" in device.text())
    assert device.terminate() == 0
    seen = device.counters()["samples_screened"]
    device.start()  # a restart goes on, without another warning
    device.until(lambda: device.counters()["samples_screened"] > seen + 100)
    device.until(lambda: device.status()["sources"]["plant"]["state"] == "ended")
    assert int(device.status()["sources"]["plant"]["finding"].split()[0]) > seen
    assert device.terminate() == 0
    messages, text = of_device(device)
    warnings = [message for message in messages if message["event"] == "warning"]
    assert len(warnings) == 1
    assert warnings[0]["state"] == "raised"
    assert len(messages) <= 2  # before the warning, a single alarm
    assert text.count("event=differs_from_training") == 1
    assert text.count("event=alarm ") <= 3
