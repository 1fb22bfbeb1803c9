"""The queue in front of the spool's transactions."""

from collections.abc import Callable
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from edge.spool_queue import PendingBatch, PendingQueue
from edge.spool_store import NewSample


def batch(
    *priorities: float, size: int = 10, cursor: str = "", on_durable: Callable[[], None] | None = None
) -> PendingBatch:
    samples = [NewSample(f"{priority}".encode(), priority, bytes(size)) for priority in priorities]
    callbacks = [on_durable] if on_durable is not None else []
    return PendingBatch(samples, {"samples_screened": len(samples)}, callbacks, {"plant": cursor} if cursor else {})


def priorities(samples: list[NewSample]) -> list[float]:
    return [sample.priority for sample in samples]


def queue_of(*batches: PendingBatch) -> PendingQueue:
    queue = PendingQueue()
    for item in batches:
        queue.add(item)
    return queue


def test_everything_is_taken_if_it_fits() -> None:
    queue = queue_of(batch(0.3, 0.1), batch(0.2, cursor="1"))
    work = queue.take(1000)
    assert priorities(work.samples) == [0.3, 0.1, 0.2]
    assert work.cursors == {"plant": "1"}
    assert work.all_counts() == {"samples_screened": 3, "samples_spooled": 3}
    assert not queue


def test_the_most_suspicious_are_taken_first_and_batches_with_a_cursor_whole() -> None:
    queue = queue_of(batch(0.3, 0.1), batch(0.01, 0.02, cursor="1"), batch(0.2), batch(0.001, cursor="2"))
    work = queue.take(40)
    assert priorities(work.samples) == [0.3, 0.1, 0.2]
    assert work.cursors == {}  # the second batch would fit, but not before the first
    assert queue.take(15).cursors == {"plant": "1"}  # at least one, however large
    assert queue.take(15).cursors == {"plant": "2"}


def test_callbacks_wait_for_the_last_sample_of_their_batch() -> None:
    calls: list[str] = []
    queue = queue_of(batch(0.1, 0.9, on_durable=lambda: calls.append("a")))
    first = queue.take(10)
    assert first.finish() == []
    queue.put_back(queue.take(10))
    assert len(queue.take(10).finish()) == 1


def test_counts_leave_with_the_first_transaction_and_those_of_a_cursor_with_its_batch() -> None:
    queue = queue_of(batch(0.1, 0.2), batch(0.3, cursor="1"))
    work = queue.take(10)
    assert work.counts == {"samples_screened": 2}
    queue.put_back(work)
    assert queue.take(1000).all_counts() == {"samples_screened": 1, "samples_spooled": 3}


def test_the_least_suspicious_are_dropped_but_no_batch_with_a_cursor() -> None:
    calls: list[str] = []
    dropping = batch(0.8, 0.9, on_durable=lambda: calls.append("dropped"))
    queue = queue_of(batch(0.1), dropping, batch(0.99, cursor="1"), PendingBatch([], {}, [lambda: None]))
    dropped, callbacks = queue.drop_beyond(15)
    assert dropped == 2
    assert len(callbacks) == 1
    assert priorities(queue.take(1000).samples) == [0.1, 0.99]
    assert queue.bytes == 0


@given(
    st.lists(
        st.tuples(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 50)), max_size=6), st.booleans()), max_size=8
    ),
    st.integers(1, 120),
    st.lists(st.booleans(), max_size=40),
)
def test_no_sample_is_lost_or_doubled_and_callbacks_come_once(
    arrivals: list[tuple[list[tuple[float, int]], bool]], max_bytes: int, failures: list[bool]
) -> None:
    queue, called, written, cursors = PendingQueue(), list[int](), list[bytes](), list[str]()
    number = 0
    for index, (items, has_cursor) in enumerate(arrivals):
        samples = []
        for priority, size in items:
            samples.append(NewSample(str(number).encode(), priority, bytes(size)))
            number += 1
        cursor = {"plant": str(index)} if has_cursor else {}
        queue.add(PendingBatch(samples, {}, [partial(called.append, index)], cursor))
    for _ in range(200):
        if not queue:
            break
        work = queue.take(max_bytes)
        if failures and failures.pop():
            queue.put_back(work)
            continue
        written += [sample.sample_id for sample in work.samples]
        cursors += work.cursors.values()
        for callback in work.finish():
            callback()
    assert sorted(written) == sorted(str(n).encode() for n in range(number))
    assert sorted(called) == list(range(len(arrivals)))
    assert queue.bytes == 0
    assert cursors == sorted(cursors)
