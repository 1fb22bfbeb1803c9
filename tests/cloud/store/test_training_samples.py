"""Choice of stored samples for a training on each back end: normal ones, labelled ones, and all that is left out."""

import time
import uuid

import numpy as np
import pytest
from sqlalchemy import update

from cloud.store import training_samples
from cloud.store.ingest import Received, store_samples
from cloud.store.judging import store_verdicts, waiting_samples
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.registry import Registry
from cloud.store.schema import devices
from cloud.store.training_samples import SampleSource, choose_samples, devices_of, devices_screening_with
from shared.bundle import sign
from shared.modality import Modality
from shared.samples import Decision, Opinion, Route, Sample, Screening, Verdict, new_sample_id
from shared.wire import encode_payload
from tests.cloud.console.filled_store import CAMERA, KEY, SHUTTLE, add_devices, manifest


@pytest.fixture
async def send(store, location):
    """Store a judged sample of a device, screened by a bundle; its id."""
    registry = Registry(store, location, KEY.public_key())
    other = manifest(SHUTTLE)
    other = other.model_copy(update={"input": other.input.model_copy(update={"channels": ("a", "b")})})
    # The oldest one of the name has other columns.
    bundles = (manifest(SHUTTLE, 2), manifest(SHUTTLE, 3), other, manifest(CAMERA))
    entries = [await registry.publish(sign(each, {"edge/note.json": b"{}"}, KEY)) for each in bundles]

    async def send(route=Route.FORWARD, decision=Decision.NORMAL, device_id="one", bundle=0, label=None) -> uuid.UUID:
        values = np.arange(9, dtype=np.float32)
        sample = Sample(new_sample_id(), "lab", Modality.TABULAR, time.time(), "row", values)
        screening = Screening(1.0, 0.01, False, route, entries[bundle].bundle_id, "cal", "int8", None)
        await store_samples(
            store, device_id, [Received(sample, screening, encode_payload(values, Modality.TABULAR))], time.time()
        )
        (waiting,) = await waiting_samples(store, 10)
        opinion = Opinion("knn", 1.0, 0.5, False)
        verdict = Verdict(sample.sample_id, decision, 0.5, False, (opinion,), entries[0].bundle_id)
        await store_verdicts(store, [(waiting, verdict)])
        for each in label or ():
            await add_label(store, sample.sample_id, NewLabel(each, "ada"), "ada")
        return sample.sample_id

    return send


async def choose(store, *devices: str, since_s: float = 0.0, format_of: str = ""):
    async with store.reading() as connection:
        chosen = await choose_samples(connection, SampleSource(devices, "shuttle", since_s, format_of))
    assert chosen is not None
    return chosen


async def test_normals_are_judged_normal_or_labelled_so_and_anomalies_are_labelled(store, send):
    for _ in range(3):
        await send()
    await send(bundle=1)  # another version with the same columns
    await send(Route.AUDIT)
    await send(Route.ALARM, Decision.ANOMALOUS, label=[Label.FALSE_ALARM])
    await send(Route.ALARM, Decision.ANOMALOUS, label=[Label.REAL])
    await send(Route.AUDIT, Decision.NORMAL, label=[Label.MISSED])
    # Left out: no label says that these are normal, or one says otherwise.
    await send(Route.ALARM, Decision.ANOMALOUS)
    await send(decision=Decision.UNDECIDED)
    await send(label=[Label.UNSURE])
    await send(label=[Label.FALSE_ALARM, Label.REAL])  # the newest counts
    await send(Route.ALARM, Decision.ANOMALOUS, label=[Label.FALSE_ALARM, Label.WITHDRAWN])
    await send(bundle=2)
    await send(device_id="two")
    chosen = await choose(store, "one")
    counts = {
        name: len(getattr(chosen, name)) for name in ("judged_normal", "audits", "false_alarms", "real", "missed")
    }
    assert counts == {"judged_normal": 4, "audits": 1, "false_alarms": 1, "real": 2, "missed": 1}
    assert (chosen.other_format, chosen.without_payload) == (1, 0)
    assert not set(chosen.normals) & set(chosen.anomalies)
    assert (chosen.modality, chosen.spec.channels) == (Modality.TABULAR, SHUTTLE.channels)
    assert len((await choose(store, "one", "two")).normals) == 7
    assert not (await choose(store, "one", since_s=time.time() + 60)).normals


async def test_the_format_is_that_of_the_newest_bundle_or_of_a_named_one(store, location, send):
    for bundle in (0, 1, 2):
        await send(bundle=bundle)
    chosen = await choose(store, "one")
    assert (len(chosen.normals), chosen.other_format, chosen.spec.channels) == (2, 1, SHUTTLE.channels)
    versions = await Registry(store, location, KEY.public_key()).versions("shuttle")
    oldest = min(versions, key=lambda entry: entry.version).bundle_id
    chosen = await choose(store, "one", format_of=oldest)
    assert (len(chosen.normals), chosen.other_format, chosen.spec.channels) == (1, 2, ("a", "b"))
    async with store.reading() as connection:
        assert await choose_samples(connection, SampleSource(("one",), "shuttle", 0.0, "shuttle-9-none")) is None


async def test_unknown_bundles_and_devices_of_other_sites_give_nothing(store):
    async with store.reading() as connection:
        assert await choose_samples(connection, SampleSource(("one",), "nothing", 0.0)) is None
        assert await devices_of(connection, group="default") == ("one", "two")
        assert await devices_of(connection, device_id="one", sites=("north",)) == ()
        assert await devices_of(connection, device_id="one", sites=("default",)) == ("one",)


async def test_all_devices_are_found_that_screened_with_a_bundle_of_the_name(store, send, monkeypatch):
    monkeypatch.setattr(training_samples, "MAX_DEVICES", 1)
    monkeypatch.setattr(training_samples, "PART", 1)
    await add_devices(store, "camera", "removed")
    for device_id, bundle in (("two", 0), ("two", 1), ("one", 2), ("camera", 3), ("removed", 0)):
        await send(device_id=device_id, bundle=bundle)
    for device_id, label in (("one", Label.MISSED), ("two", Label.REAL)):
        await send(device_id=device_id, label=[label])
    async with store.writing() as connection:
        await connection.execute(update(devices).where(devices.c.device_id == "removed").values(removed_at_s=1.0))
    async with store.reading() as connection:
        found = await devices_screening_with(connection, "shuttle")
    assert found == ("one", "two"), "not the one that never ran it, nor the removed one"
    chosen = await choose(store, *found)
    assert (len(chosen.missed), len(chosen.real)) == (1, 1), "labels of more devices than one query names"
