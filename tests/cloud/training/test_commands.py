"""Tests of the training commands: results, exit codes and one-line errors."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from shared.bundle import Bundle
from shared.cli import main
from shared.signing_keys import new_signing_key, public_pem

QUICK = """
analyzers = ["knn"]
hidden = [32, 32]
device = "cpu"
[head]
steps = 60
batch_size = 64
perturbed = 2000
"""


def vedette(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run a command and return its exit code."""
    monkeypatch.setattr("sys.argv", ["vedette", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "train.toml"
    path.write_text(QUICK)
    return path


def test_train_inspect_verify_and_sign(
    tmp_path: Path,
    biopsy_file: Path,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own_home: Path,
) -> None:
    bundle, summary = tmp_path / "b.vedette", tmp_path / "out.json"
    options = ("--modality", "tabular", "--output", bundle, "--config", config, "--json", summary, "--name", "biopsy")
    assert vedette(monkeypatch, "train", biopsy_file, *options) == 0
    written = capsys.readouterr()
    assert "Made a signing key" in written.err
    assert "distilling the head" in written.err  # plain lines without a terminal
    facts = json.loads(summary.read_text())
    assert facts["status"] == "ok"
    assert facts["name"] == "biopsy"
    assert facts["bundle_id"] in written.out

    judgement = facts["training"]["judgement"]
    for line in (*judgement["sentences"], *judgement["warnings"]):
        assert line in written.out
    assert "This becomes version 1 of 'biopsy', the next free one." in written.err

    assert vedette(monkeypatch, "train", biopsy_file, *options, "--version", 1) == 3
    assert f"taken: {facts['bundle_id']} at {bundle}. The next free version is 2" in capsys.readouterr().err
    assert Bundle.peek(bundle).version == 1
    assert f"Next: vedette evaluate {bundle} {biopsy_file}" in written.out
    assert "…" not in written.out

    assert vedette(monkeypatch, "bundle", "verify", bundle) == 0
    assert vedette(monkeypatch, "bundle", "inspect", bundle) == 0
    shown = capsys.readouterr().out
    assert "valid, by key" in shown
    assert judgement["sentences"][0] in shown
    in_float = facts["training"]["float_layers"]["int8_openvino"]
    assert f"{len(in_float)} of {facts['training']['layers']}" in shown
    assert f"In float in int8_openvino: {', '.join(in_float)}." in shown
    assert f"rank_correlation {facts['tolerances']['rank_correlation']}" in shown

    other, public = tmp_path / "other.pem", tmp_path / "public.pem"
    public.write_bytes(public_pem(new_signing_key(other).public_key()))
    assert vedette(monkeypatch, "bundle", "sign", bundle, "--signing-key", other) == 0
    assert vedette(monkeypatch, "bundle", "verify", bundle) == 5
    assert vedette(monkeypatch, "bundle", "verify", bundle, "--key", public) == 0
    assert vedette(monkeypatch, "bundle", "inspect", bundle) == 0
    assert "NOT trusted" in capsys.readouterr().out
    assert Bundle.peek(bundle).bundle_id == facts["bundle_id"]

    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    assert vedette(monkeypatch, "bundle", "verify", bundle, "--key", public) == 5


def test_strict_refuses_a_bundle_of_copies_and_pictures_are_drawn(
    tmp_path: Path, biopsy_file: Path, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, summary, plots = tmp_path / "b.vedette", tmp_path / "out.json", tmp_path / "plots"
    options = ("--modality", "tabular", "--output", bundle, "--config", config, "--json", summary)
    data = np.load(biopsy_file)
    normal = data["X"][~data["y"]][:100]
    np.savez(tmp_path / "copied.npz", X=np.tile(normal, (3, 1)))
    assert vedette(monkeypatch, "train", tmp_path / "copied.npz", *options, "--strict", "--plots", plots) == 17
    assert not bundle.exists()
    result = json.loads(summary.read_text())
    assert result["status"] == "failed"
    assert result["judgement"]["warnings"][0] in result["error"]
    assert "held-out rows are copies of training rows" in result["error"]
    assert result["judgement"]["figures"]["copies"]["normals"] == 200
    assert "No bundle was written" in capsys.readouterr().err
    assert {path.name for path in plots.iterdir()} >= {"corrupted-far-value.png"}
    relaxed = ("--false-alarms-per-day", "200", "--strict")
    code = vedette(monkeypatch, "train", biopsy_file, *options, *relaxed)
    result = json.loads(summary.read_text())
    assert code == (17 if result.get("judgement") else 0)
    assert bundle.exists() is (code == 0)


def test_a_failure_gives_one_line_an_exit_code_and_valid_json(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "out.json"
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n3,x\n")
    options = ("--modality", "tabular", "--output", tmp_path / "b", "--config", config, "--json", summary)
    assert vedette(monkeypatch, "train", tmp_path / "rows.csv", *options) == 4
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "row 2, column 'b': 'x' is not a number" in last
    failure = json.loads(summary.read_text())
    assert failure["status"] == "failed"
    assert failure["exit_code"] == 4
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("heads = 3", "did you mean 'head'"), ("[head]\nsteps = 0", "head.steps"), ("name = 'A b'", "name")],
)
def test_wrong_settings_are_refused_before_anything_runs(
    tmp_path: Path, text: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.toml").write_text(text)
    options = ("--modality", "tabular", "--output", tmp_path / "b", "--config", tmp_path / "train.toml")
    assert vedette(monkeypatch, "train", tmp_path / "rows.csv", *options) == 3
    assert expected in capsys.readouterr().err


def test_the_format_of_a_table_is_set_by_options_or_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "train.toml"
    config.write_text('[data]\ncolumns = ["a"]\n[data.table]\ndelimiter = ";"\ndecimal = ","\n')
    options = ("--modality", "series", "--config", config, "--print-config")
    table = ("--delimiter", "tab", "--dates", "day_first", "--time-column", "Datum+Zeit")
    assert vedette(monkeypatch, "train", "rows.csv", *options, *table) == 0
    shown = tomllib.loads(capsys.readouterr().out)["data"]
    assert shown["table"] == {"delimiter": "tab", "decimal": ",", "encoding": "auto", "dates": "day_first"}
    assert (shown["time_column"], shown["columns"]) == ("Datum+Zeit", ["a"])
    assert vedette(monkeypatch, "train", "rows.csv", *options, "--delimiter", "|") == 3
    assert "data.table.delimiter" in capsys.readouterr().err


def test_options_override_the_file_and_can_be_printed(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--modality", "series", "--config", config, "--window-length", 64, "--print-config")
    assert vedette(monkeypatch, "train", tmp_path / "rows.csv", *options) == 0
    text = capsys.readouterr().out
    shown = tomllib.loads(text)
    assert shown["series"]["window_length"] == 64
    assert shown["head"]["steps"] == 60
    (tmp_path / "printed.toml").write_text(text)
    again = ("--modality", "series", "--config", tmp_path / "printed.toml", "--print-config")
    assert vedette(monkeypatch, "train", tmp_path / "rows.csv", *again) == 0
    assert capsys.readouterr().out == text
    assert (
        vedette(monkeypatch, "train", tmp_path / "x", "--modality", "image", "--image-size", 20, "--output", "b") == 3
    )


def test_a_missing_output_folder_is_an_error_before_training(
    tmp_path: Path, biopsy_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "absent" / "b.vedette"
    assert vedette(monkeypatch, "train", biopsy_file, "--modality", "tabular", "--output", output) == 3
    assert "existing folder" in capsys.readouterr().err


def test_a_zero_on_the_command_line_means_what_it_means_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "train.toml"
    config.write_text(
        "version = 3\n[data]\ntrim_share = 0.1\n[series]\nwindow_length = 32\n"
        "[judgement]\nfalse_alarms_per_day = 5\nsamples_per_day = 100\n"
    )
    options = ("--modality", "series", "--config", config, "--print-config")
    names = ("--version", "--trim-share", "--window-length", "--false-alarms-per-day", "--samples-per-day")
    zeros = [word for name in names for word in (name, "0")]
    for given, kept in ((zeros, False), ([], True)):
        assert vedette(monkeypatch, "train", tmp_path, *options, *given) == 0
        read = tomllib.loads(capsys.readouterr().out)
        values = (
            read["version"],
            read["data"]["trim_share"],
            read["series"]["window_length"],
            read["judgement"]["false_alarms_per_day"],
            read["judgement"]["samples_per_day"],
        )
        assert values == ((3, 0.1, 32, 5, 100) if kept else (0, 0, 0, 0, 0))
    assert vedette(monkeypatch, "train", tmp_path, *options, "--effort", "0") == 3
    assert "give a number above 0" in capsys.readouterr().err
