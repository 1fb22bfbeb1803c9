"""Output of `--json`: valid JSON for any numbers, or one clear error for a failing disk."""

import json
import math
from pathlib import Path

import pytest

from cloud.outputs import check_output_folder, check_output_path, write_failure, write_interruption, write_json
from shared.errors import DataError, FileNotWrittenError, SettingsError


def test_a_number_that_is_none_becomes_null(tmp_path: Path) -> None:
    value = {"auroc": math.nan, "rows": [1, (2.5, math.inf)], "of": {"loss": -math.inf, "name": "nan"}}
    write_json(tmp_path / "out.json", value)
    found = json.loads((tmp_path / "out.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    assert found == {"auroc": None, "rows": [1, [2.5, None]], "of": {"loss": None, "name": "nan"}}


def test_a_failure_holds_its_error_and_exit_code(tmp_path: Path) -> None:
    error = DataError("readings.csv: no such file.")
    write_failure(tmp_path / "out.json", error)
    found = json.loads((tmp_path / "out.json").read_text())
    assert found == {"status": "failed", "error": "readings.csv: no such file.", "exit_code": error.exit_code}


def test_a_failure_that_cannot_be_written_is_said_and_hides_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    write_failure(Path("/dev/full"), DataError("readings.csv: no such file."))
    write_interruption(Path("/dev/full"))
    assert capsys.readouterr().err.count("/dev/full: cannot be written (No space left on device)") == 2
    with pytest.raises(FileNotWrittenError):
        write_json(Path("/dev/full"), {})


def test_a_link_is_written_through_and_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_json(tmp_path / "link", {"a": 1})
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "target").read_text()) == {"a": 1}


@pytest.mark.parametrize("place", ["", "missing/out.json"])
def test_a_place_where_no_file_can_be_is_refused_before_any_work(tmp_path: Path, place: str) -> None:
    with pytest.raises(SettingsError, match="Give --json another path"):
        check_output_path(tmp_path / place)


def test_a_file_or_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"/proc/out.json: cannot be written \(.+\). Give --output another path"):
        check_output_path(Path("/proc/out.json"), "--output")
    (tmp_path / "file").write_text("kept")
    for place in (Path("/proc/plots"), tmp_path / "file"):
        with pytest.raises(SettingsError, match=r"cannot be written \(.+\). Give --plots another folder"):
            check_output_folder(place, "--plots")
    check_output_path(tmp_path / "file")
    check_output_folder(tmp_path / "a" / "b", "--plots")
    for place in ("/dev/stdout", "/dev/null"):
        check_output_path(Path(place))
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "file"]


def test_nothing_is_written_where_nothing_was_asked_for() -> None:
    check_output_path(None)
    write_json(None, {"auroc": 1.0})
