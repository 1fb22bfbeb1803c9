"""Places of requests: small requests of many devices wait for their turn, and no device fills the queue."""

import asyncio
import time

import pytest

from cloud.limit_settings import LimitSettings
from cloud.service import request_slots
from cloud.service.request_slots import RequestSlots


def slots(places: int = 2) -> RequestSlots:
    return RequestSlots(LimitSettings(concurrent_submits=places, concurrent_submits_per_device=places))


async def test_requests_beyond_the_places_get_them_in_the_order_of_their_arrival():
    free, order = slots(2), []

    async def request(device_id: str) -> None:
        slot = await free.take(device_id)
        assert slot is not None
        order.append(device_id)
        await asyncio.sleep(0.001)
        free.free(slot)

    names = [f"device-{number}" for number in range(50)]
    await asyncio.gather(*map(request, names))
    assert order == names


async def test_a_device_has_one_request_in_the_queue_and_the_queue_is_bounded(monkeypatch):
    monkeypatch.setattr(request_slots, "QUEUE_S", 0.05)
    monkeypatch.setattr(request_slots, "MAX_QUEUED", 2)
    free = slots(1)
    held = await free.take("greedy")
    waiting = [asyncio.create_task(free.take(name)) for name in ("greedy", "greedy", "two", "three")]
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [False, True, False, True]
    assert waiting[1].result() is waiting[3].result() is None
    free.free(held)
    slot = await waiting[0]
    assert slot.device_id == "greedy"
    assert await waiting[2] is None  # too late
    free.free(slot)
    assert (await free.take("four")).device_id == "four"


async def test_a_place_given_to_a_call_that_ends_goes_to_the_next():
    free = slots(1)
    held = await free.take("one")
    gone, later = (asyncio.create_task(free.take(name)) for name in ("two", "three"))
    await asyncio.sleep(0)
    free.free(held)  # "two" has it now
    gone.cancel()
    assert (await asyncio.wait_for(later, 1)).device_id == "three"
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_the_fewer_places_are_free_the_fewer_has_one_device():
    free = slots(4)
    first = await free.take("one")
    waiting = asyncio.create_task(free.take("one"))
    await asyncio.sleep(0)
    assert not waiting.done()  # three are free: half of them is one
    other = await free.take("two")
    assert other is not None
    free.free(first)
    assert (await asyncio.wait_for(waiting, 1)).device_id == "one"


async def test_a_place_that_comes_together_with_the_end_of_the_wait_is_not_lost(monkeypatch):
    monkeypatch.setattr(request_slots, "QUEUE_S", 0.02)
    free = slots(1)
    held = await free.take("one")
    waiting = asyncio.create_task(free.take("two"))
    asyncio.get_running_loop().call_later(0.019, free.free, held)
    await asyncio.sleep(0)
    time.sleep(0.03)  # now the loop frees the place and ends the wait in one turn
    slot = await waiting
    assert slot is not None
    free.free(slot)
    assert (await asyncio.wait_for(free.take("three"), 1)).device_id == "three"


async def test_a_second_request_of_a_device_stays_in_the_queue_when_the_first_gets_its_place():
    free = slots(1)
    held = await free.take("one")
    first = asyncio.create_task(free.take("two"))
    await asyncio.sleep(0)
    first.add_done_callback(lambda done: free.free(done.result()))
    free.free(held)  # the first has its place, and has not run yet
    async with asyncio.timeout(1):
        assert (await free.take("two")).device_id == "two"
