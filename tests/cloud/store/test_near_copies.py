"""Counts of near copies: of a device's own samples, never falling, shown with the item, and gone with their device."""

from sqlalchemy import func, select, update

from cloud.console.review.item_view import copies_words, item_view
from cloud.store.near_copies import copies_of_sample, remove_old_copies, store_near_copies
from cloud.store.removal import begin_removal, delete_data
from cloud.store.review.builder import build_items
from cloud.store.review.item_filter import ItemFilter
from cloud.store.review.items import ItemOrder, StoredItem, item_page
from cloud.store.schema import near_copies, samples
from shared.status import NearCopies
from tests.cloud.store.review.judged import Judged, judge


async def item_of(store) -> StoredItem:
    async with store.reading() as connection:
        return (await item_page(connection, ItemFilter(), ItemOrder.NEWEST)).items[0]


async def rows(store) -> int:
    async with store.reading() as connection:
        return (await connection.execute(select(func.count()).select_from(near_copies))).scalar_one()


async def test_an_item_shows_the_copies_of_its_samples_that_stayed(store):
    numbers = await judge(store, Judged(0), Judged(10))
    await build_items(store)
    assert "copies" not in item_view(await item_of(store))["facts"]
    query = select(samples.c.sample_id).where(samples.c.number.in_(numbers)).order_by(samples.c.number)
    async with store.reading() as connection:
        one, two = (await connection.execute(query)).scalars()
    mark = item_view(await item_of(store))["mark"]
    reported = [NearCopies(sample_id=one, copies=40, last_at_s=5.0), NearCopies(sample_id=two, copies=7, last_at_s=5.0)]
    others = [NearCopies(sample_id=name, copies=1, last_at_s=0) for name in (b"", b"?", b"?" * 16, one)]
    assert await store_near_copies(store, "one", [*reported, *others]) == 2
    assert await store_near_copies(store, "two", [NearCopies(sample_id=one, copies=99, last_at_s=6.0)]) == 0
    assert await store_near_copies(store, "one", [NearCopies(sample_id=one, copies=39, last_at_s=6.0)]) == 0
    async with store.reading() as connection:
        assert await copies_of_sample(connection, numbers[0]) == (40, 5.0)
        assert await copies_of_sample(connection, max(numbers) + 1) == (0, 0.0)
    view = item_view(await item_of(store))
    assert view["facts"].endswith(", and 47 near copies on the device")
    assert view["mark"] != mark  # open pages show it
    flood = [NearCopies(sample_id=name, copies=2**64 - 1, last_at_s=9e18) for name in (one, two)]
    assert await store_near_copies(store, "one", flood) == 2
    assert item_view(await item_of(store))["facts"].endswith(copies_words(2**41))
    async with store.writing() as connection:
        await connection.execute(update(near_copies).where(near_copies.c.number == numbers[0]).values(received_at_s=1))
    assert await remove_old_copies(store, 30.0) == 1
    await delete_data(store, await begin_removal(store, "one", keep_verdicts=True), service_runs=False)
    assert await rows(store) == 0
