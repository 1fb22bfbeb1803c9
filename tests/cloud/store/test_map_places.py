"""Large maps of new verdicts: written to one segment for all attempts to store their verdicts."""

from dataclasses import replace

import numpy as np
import pytest

from cloud.serving import verdict_writer
from cloud.store import map_places
from cloud.store import segments as segments_module
from cloud.store.contents import stored_map
from cloud.store.inbox import unpack_next
from cloud.store.judging import WaitingSample, store_verdicts, waiting_samples
from cloud.store.map_places import MapPlaces
from shared.errors import StorageError
from shared.samples import Decision, Verdict
from tests.cloud.store.backends import segment_location, segment_names
from tests.cloud.store.test_group_commit import request, sample

CELLS = 8 * 1024


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path):
    return segment_location(request, tmp_path)


def verdict(waiting: WaitingSample, value: int) -> Verdict:
    """Verdict with a map of CELLS cells of this value."""
    anomaly_map = np.full((1, CELLS), value, np.uint8)
    return Verdict(waiting.sample_id, Decision.NORMAL, 0.5, bundle_id="b", anomaly_map=anomaly_map)


async def judged_samples(store, count: int) -> list[tuple[WaitingSample, Verdict]]:
    await store.append_requests([request(*(sample() for _ in range(count)))])
    await unpack_next(store, 1000)
    return [(item, verdict(item, place)) for place, item in enumerate(await waiting_samples(store, 1000))]


async def test_maps_are_written_once_for_all_attempts_to_store_their_verdicts(store, monkeypatch):
    judged = await judged_samples(store, 4)
    judged[2] = judged[2][0], replace(judged[2][1], reason="\udcff")  # refused, so the batch is halved
    monkeypatch.setattr(verdict_writer, "RETRY_MIN_S", 0.001)
    add_verdicts, failures = store.add_verdicts, list[Exception]()

    async def sometimes(rows):
        if len(failures) < 3:
            raise StorageError("disk full")
        return await add_verdicts(rows)

    monkeypatch.setattr(store, "add_verdicts", sometimes)
    stored = await verdict_writer.store_or_refuse(store, judged, failures.append)
    assert [str(error) for error in failures] == ["disk full"] * 3
    assert len(await segment_names(store)) == 1
    assert len(stored.written) == 4
    for place, (item, _) in enumerate(judged):
        found = await stored_map(store, item.sample_id)
        assert (found and found.cells) == (None if place == 2 else bytes([place]) * CELLS)


async def test_maps_are_written_again_before_their_segment_may_be_removed(store, monkeypatch):
    judged, places, add_verdicts = await judged_samples(store, 2), MapPlaces(), store.add_verdicts

    async def slow(rows):
        with monkeypatch.context() as patched:
            patched.setattr(segments_module, "SETTLED_S", -1.0)
            return await add_verdicts(rows)

    with monkeypatch.context() as patched:
        patched.setattr(store, "add_verdicts", slow)
        with pytest.raises(StorageError, match="too slow"):
            await store_verdicts(store, judged, places)
    with monkeypatch.context() as patched:
        patched.setattr(map_places, "is_settled", lambda segment_id: True)
        assert len(await store_verdicts(store, judged, places)) == 2
    assert len(await segment_names(store)) == 2
    assert (await stored_map(store, judged[1][0].sample_id)).cells == bytes([1]) * CELLS
