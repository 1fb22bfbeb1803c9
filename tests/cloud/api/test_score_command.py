"""`vedette score`: a row per sample, a summary, and one sentence at the end."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cloud.api.detector import Detector
from shared.cli import main

COLUMNS = ["flow", "heat", "noise"]


def vedette(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["vedette", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def _table(path: Path, count: int, seed: int = 0) -> pd.DataFrame:
    table = pd.DataFrame(np.random.default_rng(seed).normal(size=(count, 3)), columns=COLUMNS)
    table.insert(0, "timestamp", pd.date_range("2026-01-01", periods=count, freq="min").astype(str))
    table.to_csv(path, index=False)
    return table


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle of a table, and the folder with its key."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    _table(folder / "normal.csv", 300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VEDETTE_HOME", str(folder))
        detector = Detector("tabular", effort=0.01, device="cpu").fit(folder / "normal.csv")
        return detector.save(folder / "pump.vedette"), folder


@pytest.fixture
def bundle(trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VEDETTE_HOME", str(trained[1]))
    return trained[0]


@pytest.fixture
def readings(tmp_path: Path) -> Path:
    table = _table(tmp_path / "new.csv", 40, seed=1)
    table.loc[5, "heat"] = 50.0
    table["noise"] = table["noise"].astype(object)
    table.loc[7, "noise"] = "broken"
    table.to_csv(tmp_path / "new.csv", index=False)
    return tmp_path / "new.csv"


def test_each_row_has_a_result_and_the_end_is_one_sentence(
    bundle: Path,
    readings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, summary = tmp_path / "scores.csv", tmp_path / "summary.json"
    assert vedette(monkeypatch, "score", bundle, readings, "--output", output, "--json", summary) == 0
    with output.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [str(number) for number in range(1, 41)]
    assert rows[5]["decision"] == "anomalous"
    assert rows[5]["contribution_1"] == "heat"
    assert rows[5]["time"] == "2026-01-01 00:05:00"
    assert rows[7]["decision"] == "undecided"
    assert rows[5]["extrapolated"] == "true"
    assert float(rows[5]["p_value"]) < 1 / 91  # 90 rows were held out
    assert all(
        (row["extrapolated"] == "true") == (float(row["p_value"]) < 1 / 91 * (1 - 1e-9))
        for row in rows
        if row["p_value"]
    )
    assert rows[7]["extrapolated"] == "false"
    assert rows[7]["score"] == rows[7]["p_value"] == ""
    assert "cannot be read" in rows[7]["reason"]
    figures = json.loads(summary.read_text())
    assert figures["samples"] == 40
    assert figures["undecided"] == 1
    assert figures["anomalous"] + figures["normal"] == 39
    said = capsys.readouterr().out.strip()
    assert said == figures["conclusion"]
    assert "of 40 samples are anomalous at a false-alarm rate of 1 %" in said
    assert "1 could not be judged" in said
    assert said.count("\n") == 0


def test_parquet_holds_the_same_rows_with_types(
    bundle: Path, readings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.csv", "a.parquet"):
        assert vedette(monkeypatch, "score", bundle, readings, "--output", tmp_path / name) == 0
    table, text = pd.read_parquet(tmp_path / "a.parquet"), pd.read_csv(tmp_path / "a.csv")
    assert table["score"].dtype == table["p_value"].dtype == np.float64
    np.testing.assert_allclose(table["score"], text["score"])
    assert table["decision"].tolist() == text["decision"].tolist()
    assert table["extrapolated"].dtype == text["extrapolated"].dtype == np.bool_
    assert table["extrapolated"].tolist() == text["extrapolated"].tolist()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("method", ["knn", "screener"])
def test_methods_differ_in_score_and_agree_on_a_gross_fault(
    bundle: Path, readings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    output = tmp_path / "scores.csv"
    assert vedette(monkeypatch, "score", bundle, readings, "--output", output, "--method", method) == 0
    table = pd.read_csv(output)
    assert table["decision"][5] == "anomalous"
    assert table["extrapolated"][5]
    assert not table["extrapolated"].all()


def test_a_german_table_is_read_with_flags(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _table(tmp_path / "new.csv", 20).to_csv(tmp_path / "de.csv", sep=";", decimal=",", index=False)
    options = ("--delimiter", ";", "--decimal", ",", "--output", tmp_path / "de-scores.csv")
    assert vedette(monkeypatch, "score", bundle, tmp_path / "de.csv", *options) == 0
    assert vedette(monkeypatch, "score", bundle, tmp_path / "new.csv", "--output", tmp_path / "en-scores.csv") == 0
    pd.testing.assert_series_equal(
        pd.read_csv(tmp_path / "de-scores.csv")["score"], pd.read_csv(tmp_path / "en-scores.csv")["score"]
    )


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (("--output", "scores.xlsx"), 3, ".csv or .parquet"),
        (("--method", "svm"), 3, "there is no 'svm'"),
        (("--false-alarm-rate", "0"), 3, "between 0 and 1"),
        (("--delimiter", "|"), 3, "--delimiter"),
        (("--output", "absent/scores.csv"), 3, "existing folder"),
    ],
)
def test_a_wrong_option_is_one_line_and_leaves_no_file(
    bundle: Path,
    readings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, str],
    code: int,
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert vedette(monkeypatch, "score", bundle, readings, "--json", "failure.json", *options) == code
    assert named in capsys.readouterr().err
    assert json.loads((tmp_path / "failure.json").read_text())["exit_code"] == code
    assert {path.name for path in tmp_path.iterdir()} == {"new.csv", "failure.json"}


def test_a_file_that_ends_early_is_not_left_behind(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong.csv").write_text("flow,heat\n1,2\n")
    output = tmp_path / "scores.csv"
    output.write_text("kept")
    assert vedette(monkeypatch, "score", bundle, tmp_path / "wrong.csv", "--output", output) == 4
    assert output.read_text() == "kept"
