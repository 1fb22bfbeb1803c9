"""The signing key changes on a real service, and a real uplink follows it."""

import asyncio
import dataclasses
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.service.data_dir import open_existing
from cloud.service.signing_keys import SigningKeys
from edge.bundles.cache import BundleCache
from edge.uplink.enrolment import enroll
from edge.uplink.trust import KEY_SET_FILE
from shared.bundle import sign
from shared.key_sets import KeySet, TrustedKey
from shared.signing_keys import key_id
from tests.cloud.service.edge_device import started

NEW, FOREIGN = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
NEW_ID = key_id(NEW.public_key())


@pytest.fixture
async def state(cloud, tmp_path):
    """The state folder of a device that has just enrolled."""
    folder = tmp_path / "state"
    await asyncio.to_thread(enroll, folder, await cloud.token("press-07"))
    return folder


@pytest.fixture
def keys(cloud) -> SigningKeys:
    authority = open_existing(cloud.settings.data_dir)
    return SigningKeys(cloud.service.store, cloud.service.registry, authority.sha256)


async def confirmed(keys, count: int) -> bool:
    return all(key.devices == count for key in (await keys.report()).keys)


async def test_a_key_is_changed_end_to_end(cloud, keys, state, biopsies):
    old_id, registry = key_id(biopsies.key.public_key()), cloud.service.registry
    first, third = biopsies.bundle.manifest.bundle_id, biopsies.version(3)
    async with started(state) as device:
        await device.until(lambda: device.source.bundle_id == first)
        await keys.add(NEW.public_key(), biopsies.key)
        await device.until(lambda: device.key_ids == [old_id, NEW_ID])
        second = await registry.publish(sign(biopsies.version(2).manifest, biopsies.bundle.files, NEW))
        await device.until(lambda: device.source.bundle_id == second.bundle_id)
        async with asyncio.timeout(10):
            while not await confirmed(keys, 1):
                await asyncio.sleep(0.05)
        await keys.retire(old_id, NEW)
        await device.until(lambda: device.key_ids == [NEW_ID])
    async with started(state) as device:  # the trusted keys survive a restart
        assert device.key_ids == [NEW_ID]
        refuse_nothing(registry, biopsies.key)
        hostile = await registry.publish(third)
        await device.until(lambda: "not signed by a trusted key" in device.cache.failure(hostile.bundle_id))
        assert device.source.bundle_id != hostile.bundle_id
        assert not device.cache.has(hostile.bundle_id)


def refuse_nothing(registry, key) -> None:
    """Make a service that trusts a retired key."""

    async def keys():
        return (key.public_key(), NEW.public_key())

    registry.key_chain.keys = keys


async def test_an_archive_signed_with_a_retired_key_is_replaced_while_its_bundle_runs(cloud, keys, state, biopsies):
    bundle_id = biopsies.bundle.manifest.bundle_id
    async with started(state) as device:
        await device.until(lambda: device.source.bundle_id == bundle_id)
        await keys.add(NEW.public_key(), biopsies.key)
        await cloud.service.registry.publish(sign(biopsies.bundle.manifest, biopsies.bundle.files, NEW))
        await keys.retire(key_id(biopsies.key.public_key()), NEW, force=True)
        await device.until(lambda: device.key_ids == [NEW_ID])
        await device.until(lambda: not device.cache.is_stale(bundle_id))
        assert device.source.bundle_id == bundle_id
    again = BundleCache(state / "bundles", [NEW.public_key()])
    assert again.current("biopsy").manifest.bundle_id == bundle_id  # also without a service


async def test_a_device_refuses_key_sets_that_no_trusted_key_signed_and_replays(cloud, keys, state, biopsies):
    both_ids = [key_id(biopsies.key.public_key()), NEW_ID]
    chain, entry = cloud.service.registry.key_chain, TrustedKey.of(FOREIGN.public_key())
    async with started(state) as device:
        await keys.add(NEW.public_key(), biopsies.key)
        await device.until(lambda: device.key_ids == both_ids)
        root, newest = await chain.sets(open_existing(cloud.settings.data_dir).sha256)
        before = (state / "identity" / KEY_SET_FILE).read_bytes()
        following = newest.next([entry], NEW)
        elsewhere = KeySet.root([entry], "a" * 64)
        cases = [
            (root, "set 1 does not follow"),
            (newest, "set 2 does not follow"),
            (dataclasses.replace(following, signature=FOREIGN.sign(following.data)), "is not signed"),
            (KeySet.root([entry], root.content.authority_sha256).next([entry], FOREIGN), "set 2 does not follow"),
            (elsewhere.next([entry], FOREIGN), "another authority"),
        ]
        for hostile, words in cases:

            async def sets(_: str, hostile=hostile) -> tuple[KeySet, ...]:
                return newest, hostile

            chain.sets = sets
            await device.until(lambda words=words: words in device.keys.problem)
            assert device.key_ids == both_ids
            assert (state / "identity" / KEY_SET_FILE).read_bytes() == before
        del chain.sets
        await device.until(lambda: not device.keys.problem)
    assert json.loads(before)["serial"] == 2
