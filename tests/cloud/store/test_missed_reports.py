"""Reports of missed anomalies: a withdrawal takes back its own label only, a repeated key the same report only."""

import time
import uuid
from dataclasses import replace

import pytest

from cloud.store.defect_classes import add_class
from cloud.store.labels import KeyReusedError, Label, NewLabel, add_label, label_history
from cloud.store.missed_reports import NewReport, report_miss, withdraw_report
from cloud.store.review.decisions import Decider

ADA, BEN = Decider("ada", "account:ada"), Decider("ben", "account:ben")
NOW_S = float(int(time.time()))


async def history(store, sample_id: uuid.UUID) -> list[tuple[Label, str]]:
    async with store.reading() as connection:
        return [(each.label, each.author) for each in await label_history(connection, sample_id)]


async def test_a_withdrawn_report_takes_its_label_back(store, add) -> None:
    sample_id = uuid.UUID(bytes=(await add())[0])
    await add_class(store, "scratch", "ada")
    for new in (NewReport(sample_id, note="seen"), NewReport(sample_id, defect_class="Scratch")):
        report, _ = await report_miss(store, new, ADA)
        await withdraw_report(store, report.number, BEN)
        assert (await history(store, sample_id))[:2] == [(Label.WITHDRAWN, "ben"), (Label.MISSED, "ada")]


@pytest.mark.parametrize(
    ("author", "label", "note"),
    [("ben", Label.FALSE_ALARM, ""), ("ada", Label.REAL, ""), ("ada", Label.MISSED, "seen")],
)
async def test_a_later_label_stays_when_a_report_is_withdrawn(store, add, author, label, note) -> None:
    sample_id = uuid.UUID(bytes=(await add())[0])
    report, _ = await report_miss(store, NewReport(sample_id, note="seen"), ADA)
    await add_label(store, sample_id, NewLabel(label, author, note), f"account:{author}")
    withdrawn = await withdraw_report(store, report.number, ADA)
    assert withdrawn.withdrawn_by == "ada"
    assert (await history(store, sample_id))[0] == (label, author)


async def test_a_key_that_is_sent_again_with_another_report_is_refused(store, add) -> None:
    for name in ("scratch", "dent"):
        await add_class(store, name, "ada")
    span = NewReport(None, "one", " lab ", NOW_S - 60, NOW_S, "scratch", "seen")
    keyed = replace(ADA, client_key="span")
    stored, is_new = await report_miss(store, span, keyed)
    assert is_new
    assert await report_miss(store, replace(span, defect_class="SCRATCH"), keyed) == (stored, False)
    others = ({"device_id": "two"}, {"source_id": "yard"}, {"begin_s": NOW_S - 50}, {"end_s": NOW_S - 1}, {"note": "x"})
    for other in (*others, {"defect_class": "dent"}, {"defect_class": ""}, {"sample_id": uuid.uuid4()}):
        with pytest.raises(KeyReusedError):
            await report_miss(store, replace(span, **other), keyed)
    of_sample = NewReport(uuid.UUID(bytes=(await add())[0]))
    keyed = replace(ADA, client_key="sample")
    await report_miss(store, of_sample, keyed)
    assert not (await report_miss(store, of_sample, keyed))[1]
    with pytest.raises(KeyReusedError):
        await report_miss(store, replace(of_sample, defect_class="dent"), keyed)
