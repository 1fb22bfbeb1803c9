"""The drift benchmark on a small table and a small series, from the command to the page, and one trained stream."""

import json
from pathlib import Path

import numpy as np
import pytest

from cloud.evaluation.drift import stream_scores
from cloud.evaluation.drift.benchmark import OFF, DriftBenchmarkOptions, run_drift_benchmark
from cloud.evaluation.drift.page import drift_page
from cloud.evaluation.drift.stream_scores import EDGE, scores_of
from cloud.evaluation.drift.streams import StreamSource, find_streams
from cloud.serving.analysis import FUSED
from cloud.training.settings import TrainingSettings
from shared.errors import DataError, VedetteError

BASELINES = {"baseline_knn", "baseline_isolation_forest"}


@pytest.fixture
def streams(tmp_path: Path, make_table, series_folder: Path) -> Path:
    """Return a folder with a table, a table that is too small, and a series."""
    folder = tmp_path / "data"
    for family in ("adbench", "smd"):
        (folder / family).mkdir(parents=True)
    for name, rows, anomalies in (("press", 400, 20), ("tiny", 30, 3)):
        values, labels = make_table(rows, anomalies)
        np.savez(folder / "adbench" / f"{name}.npz", X=values, y=labels)
    (folder / "smd" / "pump.npz").symlink_to(series_folder / "pump.npz")
    return folder


def test_a_quick_run_reports_failed_streams_and_a_second_one_reads_the_kept_scores(
    tmp_path: Path, streams: Path, vedette, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, page, work = tmp_path / "drift.json", tmp_path / "drift.md", tmp_path / "work"
    options = ("--data", streams, "--quick", "--work", work, "--json", result, "--output", page)
    assert vedette("bench", "drift", *options) == VedetteError.exit_code
    shown = capsys.readouterr()
    assert "Failed: adbench-tiny: " in " ".join(shown.out.split())
    assert "1 of the streams failed" in shown.err
    summary = json.loads(result.read_text())
    assert set(summary["streams"]) == {"adbench-press", "smd-pump"}
    assert set(summary["failed"]) == {"adbench-tiny"}
    for item in summary["streams"].values():
        assert set(item["methods"]) == BASELINES
        assert item["methods"]["baseline_knn"][OFF]["recall"] > 0.9
    few = summary["means"]["seen"]["baseline_knn"][OFF]
    assert few["measurable"] is few["worst_measurable"] is None, "190 normals cannot show a rate of 1 %"
    text = page.read_text()
    assert "A quick run trains no screener" in text
    assert "cascade" not in text
    assert "--families adbench,smd,tep --quick --output docs/benchmarks/drift.md" in text
    assert "\n- adbench-tiny: " in text
    assert str(streams) not in text

    def never(*arguments: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr(stream_scores, "baseline_scores", never)
    assert vedette("bench", "drift", *options) == VedetteError.exit_code
    assert json.loads(result.read_text())["streams"] == summary["streams"]


def test_a_series_without_a_window_and_a_damaged_plant_are_failed_streams(tmp_path: Path, vedette) -> None:
    (tmp_path / "smd").mkdir()
    (tmp_path / "tep").mkdir()
    np.savez(tmp_path / "smd" / "pump.npz", train=np.arange(200.0), test=np.arange(5.0), label=np.arange(5) > 3)
    (tmp_path / "tep" / "tep.npz").write_bytes(b"PK\x03\x04 damaged")
    result = tmp_path / "out.json"
    options = ("--quick", "--work", tmp_path / "work", "--json", result)
    assert vedette("bench", "drift", "--data", tmp_path, *options, "--families", "smd") == DataError.exit_code
    assert "5 time points, but a window has 10" in json.loads(result.read_text())["error"]
    assert vedette("bench", "drift", "--data", tmp_path, *options, "--families", "tep") == DataError.exit_code
    assert "tep.npz: cannot be read" in json.loads(result.read_text())["error"]


def test_scores_of_other_code_are_computed_again(
    tmp_path: Path, streams: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = StreamSource("adbench", "press", streams / "adbench" / "press.npz")
    for code in ("one", "two"):
        monkeypatch.setattr(stream_scores, "code_fingerprint", lambda code=code: code)
        for _ in range(2):
            scores_of(source, TrainingSettings(), tmp_path, quick=True)
    assert len(list(tmp_path.glob("drift-adbench-press-quick-*.npz"))) == 2


def test_a_trained_stream_has_scores_of_the_device_and_of_the_cloud(tmp_path: Path, streams: Path, quick: Path) -> None:
    (streams / "adbench" / "tiny.npz").unlink()
    (source,) = find_streams(streams, ("adbench",))
    settings = TrainingSettings.load(quick)
    scored = scores_of(source, settings, tmp_path)
    assert set(scored.scores) == set(scored.held_out) == {EDGE, FUSED} | BASELINES
    assert {len(found) for found in scored.scores.values()} == {len(scored.labels)} == {210}
    for found in scored.scores.values():
        assert found[scored.labels].mean() > np.quantile(found[~scored.labels], 0.9)
    options = DriftBenchmarkOptions(streams, ("adbench",), tmp_path, settings, "vedette bench drift")
    text = drift_page(run_drift_benchmark(options))
    assert "A screener is trained once for each stream: on the first half" in text
    assert "* **cascade**" in text
    assert "| `edge` | cascade |" in text
