"""Pages of comparisons: the form, progress, figures with their sentences, and what has expired."""

import time
from pathlib import Path

import httpx

from cloud.store import comparisons
from cloud.store.comparison_samples import Answer, choose, next_samples, save_answers
from cloud.store.comparisons import AskedSamples, ComparisonStatus, SampleChoice
from cloud.store.labels import Label, NewLabel, add_label
from shared.bundle import sign
from shared.samples import Decision
from tests.cloud.console.conftest import running_console
from tests.cloud.console.filled_store import KEY, SHUTTLE, Fleet, manifest


async def compare(fleet: Fleet) -> tuple[int, str]:
    """A comparison of six samples, four of them judged; its number and the id of a sample with another decision."""
    await fleet.enrol()
    bundle = sign(manifest(SHUTTLE, 2), {"edge/note.json": b"2"}, KEY)
    other = (await fleet.registry.publish(bundle, make_current=False)).bundle_id
    sent = [await fleet.send(SHUTTLE, odd=number < 3) for number in range(6)]
    await add_label(fleet.store, sent[0].sample_id, NewLabel(Label.REAL, "ada"), "account:ada")
    pair = fleet.bundle_ids["shuttle"], other
    asked = AskedSamples(SampleChoice.NEWEST, 6)
    await comparisons.start(fleet.store, *pair, asked, actor="<b>ada</b>", now_s=time.time())
    claimed = await comparisons.claim(fleet.store, "a", time.time())
    assert claimed is not None
    await choose(fleet.store, claimed, 0.01)
    async with fleet.store.reading() as connection:
        waiting = await next_samples(connection, claimed.number, 4)
    answers = [Answer(1e-6, Decision.ANOMALOUS, 12.0), Answer(0.5, Decision.NORMAL, 20.0)]
    rows = [(item.number, answers[0], answers[place == 0]) for place, item in enumerate(waiting)]
    await save_answers(fleet.store, claimed.number, "a", rows, 8.0)
    return claimed.number, str(waiting[0].sample_id)


def test_a_comparison_shows_progress_figures_and_changed_samples(tmp_path: Path) -> None:
    with running_console(tmp_path) as console:
        number, changed = console.do(compare(console.fleet))
        page = httpx.get(f"{console.url}/models/compare/{number}")
        assert page.status_code == 200
        for text in (
            "4 of 6 samples, about 4.0",
            "75\N{NO-BREAK SPACE}% (3 of 4; 30 to 95\N{NO-BREAK SPACE}%)",
            "Too few labelled samples: 1 real and 0 false alarms",
            "1 anomalous with the first bundle alone, 0 with the second alone",
            f'href="/verdict/{changed}"',
            "12 ms".replace(" ", "\N{NO-BREAK SPACE}"),
        ):
            assert text in page.text, text
        assert page.text.count("<circle") == 4 + 1, "a point for each sample, beside the mark of the page"
        assert "<b>ada" not in page.text
        listed = httpx.get(f"{console.url}/models/compare", params={"second": "<i>"}).text
        assert "4 of 6 samples" in listed
        assert "<i>" not in listed
        part = httpx.get(f"{console.url}/parts/models/compare/{number}")
        assert part.headers["x-vedette-part"] == "1"
        assert " v-live" in part.text
        finished = comparisons.finish(console.store, number, "a", ComparisonStatus.LOST, "It ended.", time.time())
        console.do(finished)
        until_s = time.monotonic() + 10
        while "It ended." not in httpx.get(f"{console.url}/parts/models/compare/{number}").text:
            assert time.monotonic() < until_s, "pages share what was read within a second"
            time.sleep(0.1)
        over = httpx.get(f"{console.url}/models/compare/{number}").text
        assert " v-live" not in over, "nothing changes any more"
        for wrong in ("99", "x", "9" * 30):
            assert httpx.get(f"{console.url}/models/compare/{wrong}").status_code == 404
        console.stop()
