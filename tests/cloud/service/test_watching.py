"""Event streams of devices that only listen."""

import asyncio
from collections import Counter

from cloud.service import detection
from tests.cloud.service.harness import message


async def test_a_stream_reads_the_store_only_for_events_of_its_device(cloud, biopsies, monkeypatch):
    reads: Counter[str] = Counter()
    events_after = detection.events_after

    async def counted(store, device_id, *arguments):
        reads[device_id] += 1
        return await events_after(store, device_id, *arguments)

    monkeypatch.setattr(detection, "events_after", counted)
    busy, quiet = await cloud.device("press-01"), await cloud.device("press-02")
    listening = asyncio.create_task(quiet.events(2))  # the published bundle, and one more event
    bundle_id = biopsies.bundle.manifest.bundle_id
    await busy.submit([message(biopsies.normal[0], bundle_id=bundle_id)])
    await busy.verdicts(1)
    before = reads["press-02"]
    for values in biopsies.normal[1:5]:
        sample = message(values, bundle_id=bundle_id)
        await busy.submit([sample])
        assert sample.sample_id in await busy.verdicts(9, timeout_s=1)
    assert 0 < before == reads["press-02"]
    await cloud.service.registry.publish(biopsies.version(2))
    events = await asyncio.wait_for(listening, 10)
    assert [event.WhichOneof("event") for event in events] == ["bundle_changed"] * 2
