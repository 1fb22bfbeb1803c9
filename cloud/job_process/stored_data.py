"""Training data from the store: payloads of judged samples, collected as their modality needs them."""

import asyncio
import time
from collections.abc import Callable, Sequence

from cloud.job_process.modalities import Collecting, PayloadCollector, SplitData, job_modality
from cloud.jobs.messages import TrainingStart
from cloud.jobs.minimum import stored_shortage
from cloud.store import Store, open_store
from cloud.store.contents import load_payloads
from cloud.store.segments import LostValue
from cloud.store.training_samples import ChosenSamples, SampleSource, choose_samples, devices_of
from shared.errors import DataError, SampleRejected

PART = 100  # payloads that are read at once


def read_stored(start: TrainingStart, progress: Callable[[float], None]) -> SplitData:
    """Read the samples that a job names. Raises DataError where they are too few, or cannot be trained on."""
    return asyncio.run(_read(start, progress))


async def _read(start: TrainingStart, progress: Callable[[float], None]) -> SplitData:
    selection = start.data.stored
    assert selection is not None
    assert start.location is not None
    since_s = time.time() - selection.days * 86_400
    async with open_store(start.location) as store:
        async with store.reading() as connection:
            devices = await devices_of(
                connection, device_id=selection.device_id, group=selection.group, sites=start.sites
            )
            chosen = await choose_samples(connection, SampleSource(devices, selection.bundle_name, since_s))
        if chosen is None:
            raise DataError(f"There is no bundle named {selection.bundle_name!r} any more.")
        if sentence := stored_shortage(chosen.modality, len(chosen.normals)):
            raise DataError(sentence)
        how = Collecting(start.options.name, start.options.seed, start.folder)
        collector = job_modality(chosen.modality).collector(chosen, how)
        await collect(store, chosen, collector, progress)
    return collector.data()


async def collect(
    store: Store, chosen: ChosenSamples, collector: PayloadCollector, progress: Callable[[float], None]
) -> None:
    """Hand each payload that can be read to the collector, normal samples first."""
    anomalies = set(chosen.anomalies)
    numbers: Sequence[int] = [*chosen.normals, *chosen.anomalies]
    for first in range(0, len(numbers), PART):
        part = numbers[first : first + PART]
        found = await load_payloads(store, part)
        for number in part:
            payload = found.get(number)
            if payload is None or isinstance(payload, LostValue):
                continue
            try:
                collector.add(number, payload, is_anomalous=number in anomalies)
            except SampleRejected:
                continue
        progress((first + len(part)) / len(numbers))
