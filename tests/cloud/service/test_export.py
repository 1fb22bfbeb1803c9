"""`vedette cloud export` on a store as a running fleet would leave it."""

import asyncio
import json
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from sqlalchemy import delete
from typer.testing import CliRunner, Result

from cloud.service import export as export_module
from cloud.store.defect_classes import add_class
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.schema import payloads
from shared import cli
from shared.errors import MissingExtraError, SettingsError
from shared.samples import Verdict
from tests.cloud.console.filled_store import KINDS, SHUTTLE, Fleet, open_store

DAY_S = 86_400.0


@pytest.fixture
def verdicts(tmp_path: Path) -> list[Verdict]:
    """A verdict of each kind and one more, a day apart; the first four have labels, the first one two."""

    async def fill() -> list[Verdict]:
        store, registry = open_store(tmp_path / "data")
        async with store:
            fleet = Fleet(store, registry)
            await fleet.enrol()
            made = [await fleet.send(kind, at_s=(day + 1) * DAY_S) for day, kind in enumerate((*KINDS, SHUTTLE))]
            await add_class(store, "scratch", "user:ada")
            for place, label in (
                (0, Label.UNSURE),
                (0, Label.REAL),
                (1, Label.FALSE_ALARM),
                (2, Label.REAL),
                (3, Label.MISSED),
            ):
                of_class = "scratch" if (place, label) == (0, Label.REAL) else ""
                new = NewLabel(label, "Ada", "seen", defect_class=of_class)
                await add_label(store, made[place].sample_id, new, "user:ada")
            return made

    made = asyncio.run(fill())
    (tmp_path / "cloud.toml").write_text(f'data_dir = "{tmp_path}/data"\n')
    return made


def run(folder: Path, *words: str) -> Result:
    command = ["cloud", "export", "--config", str(folder / "cloud.toml"), "--output", str(folder / "out"), *words]
    return CliRunner().invoke(cli.build("cloud").root, command)


def test_all_verdicts_and_labels_are_exported_in_pages(
    tmp_path: Path, verdicts: list[Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "PAGE_SIZE", 2)
    done = run(tmp_path, "--json", str(tmp_path / "counts.json"))
    assert done.exit_code == 0, done.output
    assert "5 verdicts, 5 labels" in done.output
    assert json.loads((tmp_path / "counts.json").read_text())["verdicts"] == 5
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"verdicts.parquet", "labels.parquet"}
    rows = parquet.read_table(tmp_path / "out" / "verdicts.parquet").to_pylist()
    assert [row["sample_id"] for row in rows] == [str(verdict.sample_id) for verdict in verdicts]
    assert [row["label"] for row in rows] == ["real", "false_alarm", "real", "missed", None]
    for row, verdict in zip(rows, verdicts, strict=True):
        assert row["p_value"] == verdict.p_value
        assert row["judged_at"].timestamp() == pytest.approx(verdict.judged_at_s, abs=1e-5)
        assert [item["analyzer"] for item in row["opinions"]] == [item.analyzer for item in verdict.opinions]
        assert [item["name"] for item in row["contributions"]] == [name for name, _ in verdict.contributions]
    labels = parquet.read_table(tmp_path / "out" / "labels.parquet").to_pylist()
    assert [(item["label"], item["current"]) for item in labels][:2] == [("real", True), ("unsure", False)]
    assert [item["defect_class"] for item in labels][:2] == ["scratch", None]
    assert isinstance(labels[0]["at"], datetime)


def test_any_time_that_a_device_claims_can_be_exported() -> None:
    times = [export_module._moment(at_s) for at_s in (float("nan"), float("-inf"), -1.5, 0.25, 1e300)]
    read = pyarrow.array(times, pyarrow.timestamp("us", "UTC")).to_pylist()
    assert [moment.year for moment in read] == [1, 1, 1969, 1970, 9999]


def test_times_and_labels_select_verdicts(tmp_path: Path, verdicts: list[Verdict]) -> None:
    assert run(tmp_path, "--labelled", "--from", "1970-01-03", "--to", "1970-01-04T12:00:00Z").exit_code == 0
    rows = parquet.read_table(tmp_path / "out" / "verdicts.parquet").to_pylist()
    assert [row["sample_id"] for row in rows] == [str(verdict.sample_id) for verdict in verdicts[1:3]]


@pytest.mark.parametrize("wanted", [["real"], ["false_alarm", "real"], ["unsure"]])
def test_the_newest_label_selects_verdicts(tmp_path: Path, verdicts: list[Verdict], wanted: list[str]) -> None:
    options = [word for label in wanted for word in ("--label", label)]
    assert run(tmp_path, *options).exit_code == 0
    rows = parquet.read_table(tmp_path / "out" / "verdicts.parquet").to_pylist()
    selected = {row["sample_id"] for row in rows}
    labels = parquet.read_table(tmp_path / "out" / "labels.parquet").to_pylist()
    assert selected == {row["sample_id"] for row in labels if row["current"]}
    assert {row["label"] for row in rows} == set(wanted) & {"real", "false_alarm"}
    assert "not a label" in str(run(tmp_path, "--label", "odd").exception)


def test_payloads_of_labelled_samples_are_files(tmp_path: Path, verdicts: list[Verdict]) -> None:
    async def expire() -> None:
        store, _ = open_store(tmp_path / "data")
        async with store, store.writing() as connection:
            await connection.execute(delete(payloads).where(payloads.c.number == 2))

    asyncio.run(expire())
    assert "3 payloads (1 expired or damaged)" in run(tmp_path, "--payloads").output
    found = {path.stem: path for path in (tmp_path / "out" / "payloads").iterdir()}
    row, _, picture, clip = (found.get(str(verdict.sample_id)) for verdict in verdicts[:4])
    assert row is not None
    assert picture is not None
    assert clip is not None
    assert np.load(row).shape == (9,)
    assert picture.read_bytes()[1:4] == b"PNG"
    assert np.load(clip).shape == (4, 224, 224, 3)


def test_nothing_is_overwritten_and_a_store_without_verdicts_gives_empty_tables(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path / "data")
    asyncio.run(store.close())
    (tmp_path / "cloud.toml").write_text(f'data_dir = "{tmp_path}/data"\n')
    assert run(tmp_path).exit_code == 0
    assert parquet.read_table(tmp_path / "out" / "verdicts.parquet").num_rows == 0
    again = run(tmp_path)
    assert isinstance(again.exception, SettingsError)
    assert "not an empty folder" in str(again.exception)


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, verdicts: list[Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    failed = run(tmp_path)
    assert isinstance(failed.exception, MissingExtraError)
    assert "vedette[parquet]" in str(failed.exception)
