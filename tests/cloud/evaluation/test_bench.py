"""Benchmarks on synthetic data, from the command to JSON and page."""

import json
from pathlib import Path

import pytest

from cloud.evaluation.bench import mean_over, parse_seeds
from cloud.evaluation.leaderboard import routing_names
from shared.errors import SettingsError

SCREENERS = {"screener_fp32", "screener_int8_openvino", "screener_int8_onnxruntime"}
BASELINES = {"baseline_knn", "baseline_isolation_forest"}


def test_tables_resume_and_a_broken_set_does_not_stop_the_rest(
    tmp_path: Path,
    tables: Path,
    quick: Path,
    vedette,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    result, page, work = tmp_path / "out.json", tmp_path / "tables.md", tmp_path / "work"
    options = ("--data", tables, "--config", quick, "--work", work, "--seeds", "1", "--jobs", "1", "--json", result)
    assert vedette("bench", "adbench", *options, "--output", page) == 1
    shown = capsys.readouterr()
    assert "broken: " in shown.out
    assert "1 of the sets failed" in shown.err
    summary = json.loads(result.read_text())
    assert set(summary["sets"]) == {"small", "large"}
    assert set(summary["failed"]) == {"broken"}
    for figures in (*summary["sets"].values(), summary["mean"]):
        assert set(figures) == SCREENERS | BASELINES | {"knn", "fused"} | set(routing_names())
        assert figures["baseline_knn"]["auroc"] > 0.95
        assert figures["fused"]["auroc"] > 0.9
        assert {"auroc", "auprc", "recall_at_5_far", "false_alarms_at_5"} <= set(figures["fused"])
    assert summary["n_at_least_1000"]["names"] == ["large"]
    assert set(summary["without_bootstrap"]["sets"]) == {"small", "large"}
    text = page.read_text()
    assert str(tables) not in text
    assert "vedette bench adbench --data DATA --seeds 1 --config quick.toml --output docs/benchmarks/tables.md" in text
    assert "| large |" in text
    assert "## Without the bootstrap" in text

    kept = sorted(work.glob("*.json"))
    assert len(kept) == 3  # two sets, one of them also without the bootstrap
    kept[0].unlink()
    kept[1].write_text("{")  # as after a power failure
    request.getfixturevalue("worker_here")  # the figures do not depend on the process
    assert vedette("bench", "adbench", *options, "--datasets", "small,large") == 0
    assert "(resumed)" in capsys.readouterr().err
    assert json.loads(result.read_text())["sets"] == summary["sets"]


@pytest.mark.usefixtures("worker_here")
def test_series(tmp_path: Path, series_folder: Path, quick: Path, vedette) -> None:
    result = tmp_path / "out.json"
    options = ("--data", series_folder, "--config", quick, "--work", tmp_path, "--jobs", "1", "--json", result)
    assert vedette("bench", "series", *options, "--output", tmp_path / "series.md") == 0
    figures = json.loads(result.read_text())["sets"]["pump"]
    assert figures["fused"]["vus_pr"] > 0.6
    assert set(figures) >= SCREENERS | BASELINES | set(routing_names())
    assert {"vus_pr", "affiliation_f1", "f1", "upload_share"} <= set(figures["cascade_10"])
    assert "VUS-PR" in (tmp_path / "series.md").read_text()


@pytest.mark.usefixtures("worker_here")
def test_images(tmp_path: Path, image_folder: Path, quick: Path, vedette) -> None:
    result = tmp_path / "out.json"
    options = ("--data", image_folder, "--config", quick, "--work", tmp_path, "--json", result)
    assert vedette("bench", "images", *options, "--output", tmp_path / "images.md") == 0
    figures = json.loads(result.read_text())["sets"]["tiles"]
    assert figures["fused"]["auroc"] > 0.9
    assert figures["fused"]["pixel_auroc"] > 0.7
    assert 0 <= figures["screener_int8_openvino"]["pixel_auroc"] <= 1
    assert 0 <= figures["fused"]["pro"] <= 1
    assert "pixel AUROC" in (tmp_path / "images.md").read_text()


def test_wrong_options_are_one_line_and_valid_json(
    tmp_path: Path, tables: Path, vedette, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "out.json"
    assert vedette("bench", "adbench", "--data", tables, "--datasets", "absent", "--json", result) == 3
    assert "there is no 'absent'" in capsys.readouterr().err
    assert json.loads(result.read_text())["exit_code"] == 3
    assert vedette("bench", "adbench", "--data", tables, "--seeds", "few") == 3
    assert vedette("bench", "series", "--data", tables / "absent") == 4
    assert vedette("bench", "adbench", "--data", tables, "--json", tmp_path / "absent" / "out.json") == 3


def test_help_lists_the_benchmarks_with_examples(vedette, capsys: pytest.CaptureFixture[str]) -> None:
    assert vedette("bench", "--help") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("adbench", "series", "images", "video", "Examples"))
    assert vedette("bench", "adbench", "--help") == 0
    assert "--datasets glass,wine" in " ".join(capsys.readouterr().out.split())


def test_seeds_are_a_number_or_a_list() -> None:
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("4,") == (4,)
    assert parse_seeds("7,2,7") == (7, 2)
    for wrong in ("", "0", "-1", "1.5", "a", "1,b"):
        with pytest.raises(SettingsError, match="--seeds"):
            parse_seeds(wrong)
    with pytest.raises(SettingsError, match="at most 1000 seeds; for that seed alone, give --seeds 20261130,"):
        parse_seeds("20261130")
    assert parse_seeds("20261130,") == (20261130,)


def test_the_recall_a_routing_keeps_is_a_ratio_of_means() -> None:
    def board(cloud: float, cascade: float) -> dict[str, dict[str, float]]:
        kept = cascade / cloud
        return {
            "cloud_only": {"recall_at_5_far": cloud, "recall_kept_at_5_far": 1.0},
            "cascade_10": {"recall_at_5_far": cascade, "recall_kept_at_5_far": kept},
        }

    mean = mean_over([board(0.01, 0.05), board(0.99, 0.9)])
    assert mean["cascade_10"]["recall_kept_at_5_far"] == pytest.approx(0.95 / 1.0)
    assert mean["cloud_only"]["recall_kept_at_5_far"] == 1.0
