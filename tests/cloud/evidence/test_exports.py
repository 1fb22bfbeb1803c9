"""Exports of verdicts: archives whose contents can be read again, and reports of every kind of sample."""

import asyncio
import csv
import io
import json
import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from cloud.evidence import exports
from cloud.evidence.archive import export_zip
from cloud.evidence.document import document_of
from cloud.evidence.exports import Exporter, ExportForm, ExportsBusyError
from cloud.evidence.reading import Evidence
from cloud.evidence.report import report_pdf
from shared.images import decode_image
from tests.cloud.console.filled_store import CAMERA, DOOR, XSS
from tests.cloud.evidence import plant
from tests.cloud.evidence.conftest import Site


def files_of(evidence: Evidence) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(export_zip(evidence))) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert all(name.startswith(f"{evidence.record.sample_id}/") for name in names)
        return {name.partition("/")[2]: archive.read(name) for name in names}


def table_of(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode())))


async def test_an_archive_of_a_window_holds_its_readings_and_what_was_expected(site: Site) -> None:
    ids, rows = await site.plant(), plant.falling()
    evidence = await site.evidence(ids[15])
    files = files_of(evidence)
    assert set(files) == {"verdict.json", "values.csv"}
    table = table_of(files["values.csv"])
    window = [row for row in table if row["in_window"] == "1"]
    assert [float(row["temperature_c"]) for row in window] == pytest.approx(rows[240:272, 0].tolist())
    assert all(float(row["temperature_c expected"]) > 88 for row in window)
    assert float(window[-1]["time_s"]) == pytest.approx(evidence.record.captured_at_s, abs=0.002)
    told = json.loads(files["verdict.json"])
    assert told["decision"] == "anomalous"
    assert told["series"]["channels"][0]["side"] == "below"
    assert "temperature_c is too low" in told["paragraph"]
    assert export_zip(evidence) == export_zip(evidence)


async def test_an_archive_of_a_row_holds_its_features(site: Site) -> None:
    files = files_of(await site.evidence((await site.bank())[0]))
    by_name = {row["feature"]: row for row in table_of(files["values.csv"])}
    _, malignant = plant.biopsies()
    assert float(by_name["mean_area"]["value"]) == pytest.approx(malignant[0, 3])
    assert float(by_name["mean_area"]["value"]) > float(by_name["mean_area"]["normal_high"])


async def test_archives_of_pictures_hold_them_with_and_without_the_map(site: Site) -> None:
    image = files_of(await site.evidence((await site.fleet.send(CAMERA, odd=True)).sample_id))
    assert set(image) == {"verdict.json", "cloud_map.png", "edge_map.png", "picture.png", "picture_with_map.png"}
    plain, marked = (decode_image(image[name]) for name in ("picture.png", "picture_with_map.png"))
    assert plain.shape == marked.shape == (224, 224, 3)
    assert np.abs(plain.astype(int) - marked.astype(int)).max() > 60
    clip = files_of(await site.evidence((await site.fleet.send(DOOR, odd=True)).sample_id))
    assert {name for name in clip if name.startswith("frames/")} == {f"frames/{n:03d}.png" for n in range(1, 5)}


async def test_every_kind_of_sample_has_a_report(site: Site) -> None:
    ids = [(await site.plant())[15], (await site.bank())[0]]
    ids += [(await site.fleet.send(kind, odd=True)).sample_id for kind in (CAMERA, DOOR)]
    for sample_id in ids:
        data = report_pdf(await site.evidence(sample_id))
        assert data.startswith(b"%PDF-")
        assert data.rstrip().endswith(b"%%EOF")
        assert 1 <= len(re.findall(rb"/Type /Page\b", data)) <= 3
        assert len(data) < 2_000_000


async def test_texts_of_devices_neither_break_a_report_nor_become_formulas(site: Site) -> None:
    odd = (await site.fleet.send(CAMERA, origin=XSS + "\N{PILE OF POO}" * 300, odd=True)).sample_id
    assert report_pdf(await site.evidence(odd)).startswith(b"%PDF-")
    row = await site.evidence((await site.bank())[0])
    feature = replace(row.features[0], name='=HYPERLINK("http://x")')
    table = files_of(replace(row, features=(feature,)))["values.csv"].decode()
    assert "'=HYPERLINK" in table


async def test_a_document_is_json_also_where_readings_are_missing(site: Site) -> None:
    judged, window = plant.plant_bundle(), plant.windows_of(plant.falling())[15].copy()
    window[:, 2] = np.nan  # the bundle knows no missing readings: the analysis cannot judge it
    sample = plant.windows_of(plant.readings(64))[0]
    (only,) = await plant.send(site.store, judged, plant.PLANT, "other", [sample], [1.7e9], ["other@1"])
    evidence = await site.evidence(only)
    assert evidence.series is not None
    channel = replace(evidence.series.channels[0], values=window[:, 2].astype(float))
    broken = replace(evidence, series=replace(evidence.series, channels=(channel,)))
    text = json.dumps(document_of(broken), allow_nan=False)
    assert "has no readings in this window" in text
    assert report_pdf(broken).startswith(b"%PDF-")


async def test_exports_are_made_one_at_a_time_and_few_wait(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = await site.evidence((await site.fleet.send(CAMERA, odd=True)).sample_id)
    monkeypatch.setattr(exports, "MAX_WAITING", 2)
    exporter = Exporter()
    asked = [exporter.export(evidence, ExportForm.ZIP) for _ in range(4)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(answer, ExportsBusyError) for answer in answers] == [False, False, True, True]
    assert isinstance(await exporter.export(evidence, ExportForm.ZIP), bytes)
