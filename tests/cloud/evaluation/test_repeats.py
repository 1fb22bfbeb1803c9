"""A copy counts as found only if the service called its row anomalous; recurring anomalies keep their bursts."""

import json
from pathlib import Path

import numpy as np
import pytest

from cloud.evaluation.repeats import benchmark
from cloud.evaluation.repeats.benchmark import figures
from cloud.evaluation.repeats.streams import BURST, DEFECTS, RECURRENCES, RecurringStream, streams
from shared.errors import DataError, VedetteError


def test_a_copy_is_found_if_the_service_called_its_row_anomalous() -> None:
    incidents = np.array([0, 0, 1, 1, 1, 0, 2, 2, 0, 0])
    stream = RecurringStream("s", "recorded", np.zeros((1, 1)), np.zeros((10, 1)), incidents)
    anomalous = incidents > 0
    anomalous[7] = False
    without = {"sent": [0, 2, 3, 4, 6, 7, 9], "audits": [9], "held": [], "copied": [], "accepted": []}
    memory = {"sent": [0, 2, 6, 9], "audits": [9], "held": [3, 7], "copied": [2, 0], "accepted": [4]}
    found = figures(stream, anomalous, without, memory)
    assert (found["sent_without"], found["sent_with"]) == (6, 3)
    assert found["saved_share"] == pytest.approx(1 / 2)
    assert found["saved_share_of_anomalies"] == pytest.approx(3 / 5)
    assert (found["recall_without"], found["recall_with"]) == pytest.approx((4 / 5, 3 / 5))
    assert (found["incidents_without"], found["incidents_with"], found["incidents_shown"]) == (2, 2, 2)
    assert found["accepted_anomalies"] == 1


def test_nothing_is_saved_where_nothing_is_sent() -> None:
    stream = RecurringStream("s", "recorded", np.zeros((1, 1)), np.zeros((4, 1)), np.array([0, 0, 1, 0]))
    routed = {"sent": [1], "audits": [1], "held": [], "copied": [], "accepted": []}
    found = figures(stream, np.zeros(4, bool), routed, routed)
    assert (found["saved_share"], found["saved_share_of_anomalies"]) == (0.0, 0.0)
    normals = routed | {"sent": [0, 1, 3]}
    found = figures(stream, np.zeros(4, bool), normals, routed)
    assert (found["saved_share"], found["saved_share_of_anomalies"]) == (1.0, 0.0)


def test_a_failed_stream_is_reported_and_the_others_are_measured(
    tmp_path: Path, series_folder: Path, vedette, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pump", "fan"):
        (tmp_path / f"{name}.npz").write_bytes((series_folder / "pump.npz").read_bytes())

    def measured(stream: RecurringStream, *_: object) -> dict[str, object]:
        if stream.name == "fan":
            raise DataError("fan.npz: no normal rows.")
        routed = {"sent": [0, 251, 252], "audits": [], "held": [252], "copied": [251], "accepted": []}
        found = figures(stream, stream.incidents > 0, routed, routed | {"sent": [0, 251]})
        return {"name": stream.name, "kind": stream.kind, **found}

    monkeypatch.setattr(benchmark, "measure", measured)
    result, page = tmp_path / "out.json", tmp_path / "repeats.md"
    options = ("--data", tmp_path, "--json", result, "--output", page)
    assert vedette("bench", "repeats", *options) == VedetteError.exit_code
    assert "1 of the streams failed" in capsys.readouterr().err
    summary = json.loads(result.read_text())
    assert [item["name"] for item in summary["streams"]] == ["pump"]
    assert summary["failed"] == {"fan": "fan.npz: no normal rows."}
    text = page.read_text()
    assert "| pump | recorded | 700 | 42 | 3 | 2 | 33% | 50% |" in text
    assert "\n- fan: fan.npz: no normal rows." in text
    assert "`vedette bench repeats --data DATA --effort 0.1 --output docs/benchmarks/repeats.md`" in text
    assert vedette("bench", "repeats", *options, "--datasets", "fan") == DataError.exit_code
    assert json.loads(result.read_text())["error"] == "Every stream failed; fan: fan.npz: no normal rows."


def test_a_table_gives_a_stream_of_bursts(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(2000) % 20 == 0
    values = random.normal(size=(2000, 5)) + 9.0 * labels[:, None]
    np.savez(tmp_path / "1_plant.npz", X=values, y=labels)
    np.savez(tmp_path / "2_few.npz", X=values[:90], y=labels[:90])
    assert [stream.name for stream in streams(tmp_path)] == ["plant"]  # the other table is too small
    with pytest.raises(DataError, match=r"2_few.npz: 1,500 to 25,000 rows"):
        streams(tmp_path, ("few",))
    (stream,) = streams(tmp_path, ("PLANT",))
    assert len(stream.train) == 950
    assert len(stream.rows) == 950 + DEFECTS * RECURRENCES
    numbers, counts = np.unique(stream.incidents[stream.incidents > 0], return_counts=True)
    assert len(numbers) == DEFECTS * RECURRENCES // BURST
    assert (counts == BURST).all()
    assert (stream.rows[stream.incidents > 0].mean(axis=1) > 5).all()


def test_a_series_is_recorded_as_it_is(series_folder: Path) -> None:
    (stream,) = streams(series_folder, ("Pump",))
    assert stream.kind == "recorded"
    assert (stream.train.shape, stream.rows.shape) == ((900, 2), (700, 2))
    assert np.unique(stream.incidents, return_counts=True)[1].tolist() == [658, 30, 12]
