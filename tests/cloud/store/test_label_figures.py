"""Counts of labels are those of one bundle name, and say when there are more."""

import uuid

from sqlalchemy import select

from cloud.store import label_figures as figures_module
from cloud.store.label_figures import label_figures
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.schema import samples
from tests.cloud.store.review.judged import Judged, judge


async def test_a_name_does_not_count_the_labels_of_one_that_begins_with_it(store, monkeypatch) -> None:
    ids = {"cam": "cam-1-00000000", "cam-left": "cam-left-1-00000000"}
    of = ("cam", "cam-left", "cam-left")
    numbers = await judge(store, *(Judged(1000.0 * place, bundle_id=ids[name]) for place, name in enumerate(of)))
    async with store.reading() as connection:
        query = select(samples.c.number, samples.c.sample_id)
        found = {row.number: uuid.UUID(bytes=row.sample_id) for row in await connection.execute(query)}
    for number in numbers:
        await add_label(store, found[number], NewLabel(Label.REAL, "ada"), "account:ada")

    async def counted(name: str, most: int) -> tuple[int, bool]:
        monkeypatch.setattr(figures_module, "MAX_COUNTED", most)
        async with store.reading() as connection:
            figures = await label_figures(connection, name)
        return figures.samples, figures.is_cut

    assert [await counted(name, 4) for name in ids] == [(1, False), (2, False)]
    assert await counted("cam-left", 3) == (2, False), "three labels, and room for three"
    assert await counted("cam", 2) == (0, True)
