"""The evidence behind verdicts of real bundles: too high or too low, what was expected, and what is missing."""

import uuid
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import delete, update

from cloud.console.why.detail import detail_view
from cloud.evidence.bundle_facts import BundleShelf, bundle_facts
from cloud.evidence.document import document_of
from cloud.evidence.facts import facts_of, is_baseline, paragraph_of
from cloud.evidence.reading import expected_picture_of, read_evidence
from cloud.evidence.series import channel_words, side_of
from cloud.evidence.sides import SideReader, sides_of
from cloud.evidence.standing import NormalRange, Side
from cloud.store.defect_classes import add_class
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.review.grouping import Asking
from cloud.store.review.severity import Severity
from cloud.store.schema import devices, payloads
from cloud.training.examples import normal_examples
from shared.bundle import EXAMPLES_FILE, Bundle, npz_bytes, sign
from tests.cloud.console.filled_store import CAMERA, DOOR, KEY, SHUTTLE, manifest
from tests.cloud.evidence import plant
from tests.cloud.evidence.conftest import Site
from tests.cloud.evidence.test_expected_picture import wall


async def test_a_falling_temperature_is_called_too_low_beside_its_normal_range(site: Site) -> None:
    ids = await site.plant()
    evidence = await site.evidence(ids[15])  # rows 240 to 272: the temperature has just fallen to 79.65
    assert evidence.series is not None
    first = evidence.series.channels[0]
    assert first.name == "temperature_c"
    assert side_of(first, evidence.series) is Side.BELOW
    assert first.normal is not None
    assert 88 < first.normal.low < first.normal.high < 92
    words = channel_words(first, evidence.series)
    assert words.startswith("temperature_c is too low: 79.")
    assert first.normal.words in words
    paragraph = paragraph_of(facts_of(evidence))
    assert words in paragraph
    assert paragraph.startswith("This window is anomalous: ")
    assert evidence.gaps == ()


async def test_neighbouring_windows_surround_the_judged_one_at_their_times(site: Site) -> None:
    ids, rows = await site.plant(), plant.falling()
    evidence = await site.evidence(ids[15])
    plot = evidence.series
    assert plot is not None
    assert plot.placed == 12  # three window lengths to both sides, by strides of half a window
    assert plot.interval_s == pytest.approx(plant.INTERVAL_S)
    begin = 15 * plant.STRIDE - plot.begin
    for channel in plot.channels:
        place = plant.CHANNELS.index(channel.name)
        np.testing.assert_array_equal(channel.values, rows[begin : begin + plot.rows, place])
    last = plot.time_of(plot.begin + plot.length - 1)
    assert last == pytest.approx(evidence.record.captured_at_s)
    assert plot.time_of(0) == pytest.approx(last - (plot.begin + plot.length - 1) * plant.INTERVAL_S)


async def test_what_was_expected_is_near_the_normal_course(site: Site) -> None:
    ids, normal = await site.plant(), plant.readings(400, seed=3)
    plot = (await site.evidence(ids[15])).series
    assert plot is not None
    temperature = plot.channels[0]
    assert temperature.expected is not None
    within = slice(plot.begin, plot.begin + plot.length)
    expected = temperature.expected[within]
    assert np.abs(expected - normal[240:272, 0]).mean() < 0.5
    assert np.abs(temperature.values[within] - expected).min() > 8


async def test_a_normal_window_stays_within_its_ranges(site: Site) -> None:
    evidence = await site.evidence((await site.plant())[8])
    assert evidence.series is not None
    assert {side_of(each, evidence.series) for each in evidence.series.channels} == {Side.WITHIN}
    paragraph = paragraph_of(facts_of(evidence))
    assert "too low" not in paragraph
    assert "too high" not in paragraph
    assert paragraph.startswith("This window is normal to the cloud")


async def test_a_window_without_neighbours_is_shown_alone_and_says_so(site: Site) -> None:
    judged, window = plant.plant_bundle(), plant.windows_of(plant.falling())[15]
    (only,) = await plant.send(site.store, judged, plant.PLANT, "other", [window], [1.7e9], ["other@1"])
    evidence = await site.evidence(only)
    assert evidence.series is not None
    assert (evidence.series.begin, evidence.series.rows, evidence.series.interval_s) == (0, plant.LENGTH, None)
    assert any("No neighbouring window" in gap for gap in evidence.gaps)


async def test_features_lie_beside_their_ranges_and_like_rows(site: Site) -> None:
    odd = (await site.bank())[0]
    evidence = await site.evidence(odd)
    benign, malignant = plant.biopsies()
    by_name = {feature.name: feature for feature in evidence.features}
    area = by_name["mean_area"]
    assert area.side is Side.ABOVE
    assert area.normal is not None
    low, high = np.quantile(benign[:200, 3], [0.01, 0.99])
    assert (area.normal.low, area.normal.high) == pytest.approx((low, high))
    assert area.typical is not None
    assert area.typical[0] <= area.typical[1] <= area.typical[2] < area.value
    assert by_name["texture_error"].side is Side.WITHIN
    first = evidence.features[0]
    assert first.side is Side.ABOVE  # without contributions those farthest from normal come first
    assert f"{first.name} " in paragraph_of(facts_of(evidence))
    assert "is too high: normal is" in paragraph_of(facts_of(evidence))
    assert malignant[0, 3] == pytest.approx(area.value)


async def test_baselines_are_told_from_the_fused_analyzers(site: Site) -> None:
    evidence = await site.evidence((await site.bank())[0])
    told = {opinion.analyzer: is_baseline(opinion, evidence) for opinion in evidence.record.opinions}
    assert told == {"time_estimation": False, "knn": True}
    assert set(plant.bank_bundle().analysis.fusion.weights) == {"time_estimation"}
    assert "Simple baselines find it odd as well: knn" in paragraph_of(facts_of(evidence))


async def test_earlier_ones_like_it_bring_their_labels(site: Site) -> None:
    ids = await site.plant()
    await add_label(site.store, ids[15], NewLabel(Label.FALSE_ALARM, "anna", "sensor unplugged"), "user:anna")
    evidence = await site.evidence(ids[16])
    assert evidence.similar[0].row.sample_id == ids[15]
    assert evidence.similar[0].label is Label.FALSE_ALARM
    assert "One earlier one like it was labelled a false alarm." in paragraph_of(facts_of(evidence))
    own = await site.evidence(ids[15])
    assert own.labels[0].author == "anna"
    assert "anna labelled it a false alarm." in paragraph_of(facts_of(own))


async def test_a_window_of_readings_is_signed_by_the_side_of_its_deviation(site: Site) -> None:
    sides = sides_of(
        np.array([[1.0, 5.0, np.nan], [9.0, 5.0, np.nan]]),
        ["up", "calm", "gone"],
        {name: NormalRange(2.0, 6.0, 1.0) for name in ("up", "calm", "gone")},
    )
    assert sides == {"up": "+"}
    evidence = await site.evidence((await site.plant())[16])
    record = evidence.record
    moment_s = record.judged_at_s
    asking = Asking(
        record.number,
        record.device_id,
        record.source_id,
        record.modality.value,
        Severity.ALARM,
        moment_s,
        moment_s,
        1e-3,
        bundle_id=record.bundle_id,
        contributions=record.contributions,
    )
    found = await SideReader(site.store, site.shelf)([asking, replace(asking, number=10**6)])
    assert list(found) == [record.number]
    assert set(found[record.number].values()) <= {"+", "-"}
    assert found[record.number]
    assert await SideReader(site.store, site.shelf)([replace(asking, bundle_id="gone-1-00000000")]) == {}


async def test_a_withdrawn_label_is_shown_as_such(site: Site) -> None:
    sample_id = (await site.bank())[0]
    await add_class(site.store, "scratch", "user:anna")
    await add_label(site.store, sample_id, NewLabel(Label.REAL, "anna", defect_class="scratch"), "user:anna")
    evidence = await site.evidence(sample_id)
    assert "anna labelled it real, of the class scratch." in paragraph_of(facts_of(evidence))
    assert document_of(evidence)["labels"][0]["defect_class"] == "scratch"
    await add_label(site.store, sample_id, NewLabel(Label.WITHDRAWN, "anna"), "user:anna")
    evidence = await site.evidence(sample_id)
    assert "labelled" not in paragraph_of(facts_of(evidence))
    shown = detail_view(evidence)["labels"]
    assert [(each["words"], each["defect_class"]) for each in shown] == [("withdrawn", ""), ("real", "scratch")]


async def test_history_is_of_the_own_source_in_the_order_of_time(site: Site) -> None:
    ids = await site.plant()
    judged, window = plant.plant_bundle(), plant.windows_of(plant.readings(64))[0]
    await plant.send(site.store, judged, plant.PLANT, "other", [window], [1.7e9], ["other@1"])
    evidence = await site.evidence(ids[5])
    assert [item.sample_id for item in evidence.history] == ids
    assert [item.sample_id for item in evidence.history if item.is_this] == [ids[5]]


async def test_normal_pictures_of_the_source_are_offered(site: Site) -> None:
    normal = [(await site.fleet.send(kind, odd=False)).sample_id for kind in (CAMERA, CAMERA, DOOR)]
    odd = (await site.fleet.send(CAMERA, odd=True)).sample_id
    evidence = await site.evidence(odd)
    assert {example.sample_id for example in evidence.examples} == set(normal[:2])
    expected = expected_picture_of(evidence)
    assert expected is not None
    values = evidence.contents.values
    assert values is not None
    changed = np.abs(expected.astype(int) - values.astype(int)).max(axis=2) > 8
    left, top, width, height = (
        (round(224 * share) for share in evidence.region.box) if evidence.region else (0, 0, 0, 0)
    )
    assert changed[top : top + height, left : left + width].mean() > 0.3  # the foreign piece is gone
    assert changed.sum() < 3 * width * height  # and nothing far from it has changed
    assert [example.distance for example in evidence.examples] == sorted(e.distance for e in evidence.examples)
    assert evidence.region is not None
    assert "of the image, on" in paragraph_of(facts_of(evidence))


async def test_a_bundle_with_pictures_shows_what_is_normal_where_the_source_has_none(site: Site) -> None:
    walls = np.stack([wall(top, left) for top, left in ((0, 0), (60, 200), (180, 90), (250, 250))])
    pictured = manifest(CAMERA, version=2)
    bundle = sign(pictured, {EXAMPLES_FILE: npz_bytes(normal_examples(walls, 4))}, KEY)
    site.fleet.bundle_ids["bricks"] = (await site.registry.publish(bundle)).bundle_id
    evidence = await site.evidence((await site.fleet.send(CAMERA, odd=True)).sample_id)
    assert evidence.examples == ()
    assert evidence.bundle is not None
    assert len(evidence.bundle.pictures) == 4
    assert evidence.has_expected_picture
    assert expected_picture_of(evidence) is not None
    shown = detail_view(evidence)
    assert [picture["words"] for picture in shown["bundle_pictures"]] == [
        "Golden",
        "Held out 1",
        "Held out 2",
        "Held out 3",
    ]
    assert detail_view(evidence, is_shared=True)["bundle_pictures"] == []


async def test_each_missing_part_is_said_in_one_sentence(site: Site) -> None:
    odd = (await site.bank())[0]
    await add_label(site.store, odd, NewLabel(Label.REAL, "anna"), "user:anna")
    async with site.store.writing() as connection:
        await connection.execute(delete(payloads))
        await connection.execute(update(devices).values(removed_at_s=1.0))
    read = site.shelf._read

    async def gone(bundle_id: str) -> Bundle:
        assert await read(bundle_id)
        raise ValueError("the archive was deleted")

    site.shelf = BundleShelf(gone)
    evidence = await site.evidence(odd)
    text = " ".join(evidence.gaps)
    assert "expired" in text
    assert "cannot be read: its normal ranges and expected values are not shown" in text
    assert "was removed from the fleet" in text
    assert len(evidence.gaps) == 3
    assert evidence.features == ()
    assert paragraph_of(facts_of(evidence)).startswith("This row is anomalous")


async def test_a_picture_that_cannot_be_decoded_leaves_the_rest(site: Site) -> None:
    normal = (await site.fleet.send(CAMERA, odd=False)).sample_id
    odd = (await site.fleet.send(CAMERA, odd=True)).sample_id
    async with site.store.writing() as connection:
        await connection.execute(update(payloads).values(data=b"\x89PNG\r\n\x1a\nnot really"))
    evidence = await site.evidence(odd)
    assert evidence.examples == ()
    assert any("cannot be shown" in gap for gap in evidence.gaps)
    assert evidence.region is not None  # the map is stored apart
    assert {item.sample_id for item in evidence.history} == {normal, odd}


async def test_unknown_and_waiting_samples_have_no_evidence(site: Site) -> None:
    waiting = await site.fleet.leave_waiting(SHUTTLE)
    assert await read_evidence(site.store, site.shelf, waiting.sample_id) is True
    assert await read_evidence(site.store, site.shelf, uuid.uuid4()) is False


def test_held_out_rows_are_in_the_units_of_the_sample() -> None:
    judged = plant.bank_bundle()
    facts = bundle_facts(judged.bundle)
    benign, _ = plant.biopsies()
    assert facts.normal_rows is not None
    np.testing.assert_allclose(facts.normal_rows, benign[200:300], rtol=2e-3, atol=1e-4)
