"""`vedette evaluate` on a bundle of each modality, with and without labels."""

import json
from pathlib import Path

import numpy as np
import pytest

from cloud.evaluation.leaderboard import routing_names
from shared.images import decode_image

SCREENERS = {"screener_fp32", "screener_int8_openvino", "screener_int8_onnxruntime"}
METHODS = SCREENERS | {"knn", "fused", "baseline_knn", "baseline_isolation_forest"}


def trained(vedette, quick: Path, data: Path, modality: str, bundle: Path) -> Path:
    assert vedette("train", data, "--modality", modality, "--output", bundle, "--config", quick) == 0
    return bundle


def drawn(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: decode_image(path.read_bytes()) for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def pump_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pump")


@pytest.fixture
def pump(pump_folder: Path, quick: Path, make_table, vedette, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a bundle of rows, trained once for all tests, and use the home whose key has signed it."""
    monkeypatch.setenv("VEDETTE_HOME", str(pump_folder / "home"))
    if not (pump_folder / "pump.vedette").exists():
        np.savez(pump_folder / "train.npz", X=make_table(200, 0)[0])
        trained(vedette, quick, pump_folder / "train.npz", "tabular", pump_folder / "pump.vedette")
    return pump_folder / "pump.vedette"


def test_rows_with_labels_without_labels_and_of_other_width(
    tmp_path: Path, pump: Path, make_table, vedette, capsys: pytest.CaptureFixture[str]
) -> None:
    values, labels = make_table(150, 15, seed=1)  # few anomalies, which is a finding
    values[3, 1] = np.nan
    np.savez(tmp_path / "test.npz", X=values, y=labels)
    result, plots = tmp_path / "out.json", tmp_path / "plots"
    with pytest.MonkeyPatch.context() as patched:
        patched.delattr("cloud.evaluation.evaluate.evaluate_data")  # nothing is scored
        assert vedette("evaluate", pump, tmp_path / "test.npz", "--plots", tmp_path / "test.npz") == 3
    assert "Give --plots another folder." in " ".join(capsys.readouterr().err.split())
    assert vedette("evaluate", pump, tmp_path / "test.npz", "--json", result, "--plots", plots) == 0
    found = json.loads(result.read_text())
    assert found["samples"] + found["rejected"] == 150
    assert set(found["methods"]) == METHODS
    assert found["methods"]["fused"]["auroc"] > 0.9
    assert found["methods"]["fused"]["false_alarms_at_5_low"] <= 0.05
    assert list(found["leaderboard"]) == list(routing_names())
    assert found["leaderboard"]["edge_only"]["auroc"] == pytest.approx(found["methods"][found["edge"]]["auroc"])
    shown = capsys.readouterr().out
    assert "screener_int8_onnxruntime" in shown
    assert "cascade_10" in shown
    assert "…" not in shown
    for sentence in (*found["key_figures"], *found["findings"]):
        assert sentence in shown  # in a pipe no sentence is wrapped, also with COLUMNS=80
    assert found["findings"]
    tables = shown.index("screener_int8_onnxruntime"), shown.index("cascade_10")
    places = [shown.index(sentence) for sentence in found["findings"]]
    assert shown.index(found["key_figures"][-1]) < min(tables) < max(tables) < places[0]
    assert places == sorted(places)
    assert shown.rstrip().endswith(found["findings"][-1])
    for figure in found["methods"]["fused"]["auroc"], found["leaderboard"]["cascade_10"]["auprc"]:
        assert f"{100 * figure:.2f}" in shown
    pictures = drawn(plots)
    assert set(pictures) >= {"curves.png", "p_values.png"}
    assert all(pixels.std() > 5 for pixels in pictures.values())  # not blank

    np.savez(tmp_path / "plain.npz", X=values[:60])
    assert vedette("evaluate", pump, tmp_path / "plain.npz", "--json", result) == 0
    found = json.loads(result.read_text())
    assert found["anomalies"] is None
    assert found["leaderboard"] == {}
    assert 0 <= found["methods"]["fused"]["flagged_at_5"] <= 1
    assert "auroc" not in found["methods"]["fused"]

    np.savez(tmp_path / "shifted.npz", X=values[10:60] + np.array([0, 0, 30, 0]))
    assert vedette("evaluate", pump, tmp_path / "shifted.npz", "--json", result) == 0
    (finding,) = json.loads(result.read_text())["findings"]
    assert finding.startswith("All samples are flagged")
    assert "against" in finding

    np.savez(tmp_path / "narrow.npz", X=values[:, :3])
    assert vedette("evaluate", pump, tmp_path / "narrow.npz", "--json", result) == 4
    assert "3 columns" in capsys.readouterr().err
    assert json.loads(result.read_text())["status"] == "failed"


def test_data_without_normals_or_variance_can_be_evaluated(tmp_path: Path, pump: Path, make_table, vedette) -> None:
    values, labels = make_table(150, 20, seed=1)
    result = tmp_path / "out.json"
    stuck = np.repeat(values[:1], 10, axis=0)
    for rows, kinds in ((values[labels == 1], np.ones(20)), (values[:1], None), (stuck, None)):
        np.savez(tmp_path / "test.npz", X=rows, **({} if kinds is None else {"y": kinds}))
        assert vedette("evaluate", pump, tmp_path / "test.npz", "--json", result) == 0
        found = json.loads(result.read_text())
        assert found["samples"] == len(rows)
        assert found["leaderboard"] == {}
        assert any("all samples are anomalous" in note for note in found["notes"]) == (kinds is not None)


def test_series(tmp_path: Path, series_folder: Path, quick: Path, vedette) -> None:
    bundle = trained(vedette, quick, series_folder / "pump.npz", "series", tmp_path / "b.vedette")
    result, plots = tmp_path / "out.json", tmp_path / "plots"
    assert vedette("evaluate", bundle, series_folder / "pump.npz", "--json", result, "--plots", plots) == 0
    found = json.loads(result.read_text())
    assert set(found["methods"]) == METHODS
    assert found["methods"]["fused"]["vus_pr"] > 0.5
    assert {"point_auroc", "point_f1", "point_affiliation_f1"} <= set(found["methods"]["fused"])
    assert not found["notes"]  # its test part is not training data
    assert set(drawn(plots)) >= {"curves.png", "p_values.png", "timeline.png"}


def test_images(tmp_path: Path, image_folder: Path, quick: Path, vedette) -> None:
    tiles = image_folder / "tiles"
    bundle = trained(vedette, quick, tiles, "image", tmp_path / "b.vedette")
    result, plots = tmp_path / "out.json", tmp_path / "plots"
    assert vedette("evaluate", bundle, tiles, "--json", result, "--plots", plots) == 0
    found = json.loads(result.read_text())
    assert set(found["methods"]) == METHODS
    assert found["methods"]["fused"]["auroc"] > 0.9
    assert found["methods"]["fused"]["pixel_auroc"] > 0.7
    assert 0 <= found["methods"]["screener_fp32"]["pixel_auroc"] <= 1
    assert set(drawn(plots)) == {"curves.png", "p_values.png", "heatmaps.png"}

    assert vedette("evaluate", bundle, tiles / "train" / "good", "--json", result) == 0
    assert json.loads(result.read_text())["samples"] == 44


def test_settings_tell_how_to_read_a_table_and_errors_are_in_the_json(
    tmp_path: Path, pump: Path, make_table, vedette
) -> None:
    values, _ = make_table(60, 0)
    lines = [";".join(f"{value:.4f}".replace(".", ",") for value in row) for row in values]
    (tmp_path / "new.csv").write_text("\n".join(["x1;x2;x3;x4", *lines]))
    config, result = tmp_path / "read.toml", tmp_path / "out.json"
    config.write_text('[data.table]\ndelimiter = "tab"\ndecimal = ","\n')
    options = ("--config", config, "--json", result)
    assert vedette("evaluate", pump, tmp_path / "new.csv", *options, "--delimiter", ";") == 0
    assert json.loads(result.read_text())["samples"] == 60
    config.write_text('[data.table]\ndelimiter = "|"\n')
    assert vedette("evaluate", pump, tmp_path / "new.csv", *options) == 3
    assert "delimiter" in result.read_text()
