"""Bundles in the registry: published, current, fetched, rolled back."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.store import open_store
from cloud.store.events import BundleChange, events_after
from cloud.store.registry import Registry, current_bundles, publish_to
from shared.bundle import Bundle, sign
from shared.errors import BundleError, BundleIntegrityError


@pytest.fixture
async def store(location):
    async with open_store(location) as store:
        yield store


@pytest.fixture
def registry(store, tmp_path, biopsies):
    return Registry(store, tmp_path, biopsies.key.public_key())


async def changes(store):
    return [event.content for event in await events_after(store, "any-device", 0, 100)]


async def test_a_published_bundle_is_current_whole_and_announced(registry, store, biopsies):
    entry = await registry.publish(biopsies.bundle)
    assert entry == await registry.current("biopsy") == (await registry.versions("biopsy"))[0]
    assert (await registry.bundle(entry.bundle_id)).files == biopsies.bundle.files
    assert (await registry.manifest(entry.bundle_id)) == biopsies.bundle.manifest
    assert await changes(store) == [BundleChange("biopsy", entry.bundle_id)]


async def test_a_device_fetches_a_verifiable_archive_without_the_clouds_part(registry, biopsies):
    entry = await registry.publish(biopsies.bundle)
    data = (await registry.edge_archive(entry.bundle_id)).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.edge_archive_bytes, entry.edge_archive_sha256)
    fetched = Bundle.open(data, [biopsies.key.public_key()], edge_only=True)
    assert {path.partition("/")[0] for path in fetched.files} == {"edge", "preprocessing"}


async def test_publishing_again_changes_nothing(registry, store, biopsies):
    await registry.publish(biopsies.bundle)
    await registry.publish(biopsies.bundle)
    assert len(await changes(store)) == len(await registry.versions("biopsy")) == 1


async def test_a_bundle_can_be_stored_without_making_it_current(registry, store, biopsies):
    first = await registry.publish(biopsies.bundle)
    second = await registry.publish(biopsies.version(2), make_current=False)
    assert await registry.current("biopsy") == first
    assert await registry.versions("biopsy") == [second, first]
    assert await changes(store) == [BundleChange("biopsy", first.bundle_id)]
    await registry.rollout(second.bundle_id)
    assert await registry.current("biopsy") == second
    await registry.publish(biopsies.bundle, make_current=False)  # known already
    assert await registry.current("biopsy") == second
    assert await registry.rollback("biopsy") == first


async def test_a_first_bundle_that_is_only_stored_leaves_its_name_without_a_current_one(registry, store, biopsies):
    stored = await registry.publish(biopsies.bundle, make_current=False)
    assert await registry.current("biopsy") is None
    assert await changes(store) == []
    assert await registry.judging_bundle_id(stored.bundle_id) == stored.bundle_id


async def test_a_bundle_of_a_foreign_key_or_with_a_changed_file_is_refused(registry, biopsies):
    foreign = sign(biopsies.bundle.manifest, biopsies.bundle.files, Ed25519PrivateKey.generate())
    changed = Bundle(
        biopsies.bundle.manifest,
        biopsies.bundle.signature,
        {**biopsies.bundle.files, "edge/filler.npz": b"something else"},
    )
    for bundle in (foreign, changed):
        with pytest.raises(BundleIntegrityError):
            await registry.publish(bundle)
    assert await registry.current("biopsy") is None


async def test_two_bundles_cannot_share_a_version(registry, biopsies):
    await registry.publish(biopsies.bundle)
    with pytest.raises(BundleError, match="higher version"):
        await registry.publish(biopsies.version(1, training={"other": True}))


async def test_rolling_back_goes_further_back_each_time(registry, store, biopsies):
    first, second, third = [(await registry.publish(biopsies.version(number))).bundle_id for number in (1, 2, 3)]
    assert (await registry.rollback("biopsy")).bundle_id == second
    assert (await registry.rollback("biopsy")).bundle_id == first
    with pytest.raises(BundleError, match="was current before"):
        await registry.rollback("biopsy")
    await registry.rollout(third)
    assert (await registry.rollback("biopsy")).bundle_id == first
    assert [change.bundle_id for change in await changes(store)] == [first, second, third, second, first, third, first]


async def test_a_sample_is_judged_by_its_own_bundle_else_by_the_current_one_of_its_name(registry, biopsies):
    first = (await registry.publish(biopsies.bundle)).bundle_id
    second = (await registry.publish(biopsies.version(2))).bundle_id
    assert await registry.judging_bundle_id(first) == first
    assert await registry.judging_bundle_id("biopsy-7-00000000") == second
    for unknown in ("", "biopsy", "other-1-00000000", "-", "biopsy-2", "\N{SNOWMAN}-1-2"):
        assert await registry.judging_bundle_id(unknown) is None


async def test_an_unknown_bundle_is_one_clear_error(registry):
    for call in (registry.bundle, registry.rollout, registry.manifest, registry.rollback):
        with pytest.raises(BundleError, match=r"publish|rollout"):
            await call("nothing-1-00000000")


async def test_a_file_damaged_on_the_disk_is_noticed_when_it_is_opened(registry, tmp_path, biopsies):
    entry = await registry.publish(biopsies.bundle)
    path = tmp_path / "bundles" / f"{entry.bundle_id}.vedette"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleIntegrityError):
        await registry.bundle(entry.bundle_id)


async def test_several_names_each_have_their_current_bundle(registry, location, biopsies):
    await registry.publish(biopsies.bundle)
    await publish_to(location, biopsies.version(1, name="other"), biopsies.key.public_key())
    await registry.publish(biopsies.version(2))
    assert [(entry.name, entry.version) for entry in await registry.all_current()] == [("biopsy", 2), ("other", 1)]


async def test_publishing_from_another_connection_does_not_wait_for_long_readers(registry, location, biopsies):
    await registry.publish(biopsies.bundle)
    async with open_store(location) as other, other.reading() as connection:
        before = await current_bundles(connection)
        await registry.publish(biopsies.version(2))
        assert await current_bundles(connection) == before
