"""Keys that may sign bundles: added, retired and listed beside a running service."""

import json
import sqlite3
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.rollouts.phases import RolloutEvent
from cloud.rollouts.stages import Stage
from cloud.service.data_dir import open_existing, prepare
from cloud.service.signing_keys import SigningKeys
from cloud.store import open_store
from cloud.store.fleet import revoke
from cloud.store.registry import Registry
from cloud.store.rollouts import begin, command
from shared.bundle import Bundle, sign
from shared.errors import CertificateError, StorageError, UntrustedBundleError
from shared.key_sets import KeySet
from shared.signing_keys import key_id, load_signing_key
from tests.cloud.service.harness import settings_for
from tests.cloud.service.served import call, write_settings
from vedette.v1 import fleet_pb2

NEW = Ed25519PrivateKey.generate()
NEW_ID = key_id(NEW.public_key())


def keys_of(cloud) -> SigningKeys:
    authority = open_existing(cloud.settings.data_dir)
    return SigningKeys(cloud.service.store, cloud.service.registry, authority.sha256)


def signed_with(key: Ed25519PrivateKey, bundle: Bundle) -> Bundle:
    return sign(bundle.manifest, bundle.files, key)


async def confirm(device, sets: list[KeySet]) -> list[KeySet]:
    """Send a heartbeat with the newest of a device's sets; return the sets of the answer."""
    digest = bytes.fromhex(sets[-1].sha256) if sets else b""
    answer = await device.fleet.Heartbeat(fleet_pb2.HeartbeatRequest(key_set_sha256=digest))
    return [KeySet.from_message(item) for item in answer.key_sets]


async def begin_rollout(cloud, entry) -> None:
    stages, told = [Stage(name="wave 100 %", percent=100)], {"author": "ada", "reason": "", "now_s": time.time()}
    await begin(cloud.service.store, entry.name, entry.bundle_id, stages, **told)


async def end_rollout(cloud) -> None:
    told = {"author": "ada", "reason": "", "now_s": time.time()}
    await command(cloud.service.store, "biopsy", RolloutEvent.BACK, **told)


async def test_a_key_is_changed_step_by_step_and_every_step_too_early_is_refused(cloud, biopsies):
    old, old_id = biopsies.key, key_id(biopsies.key.public_key())
    keys, registry = keys_of(cloud), cloud.service.registry
    devices = [await cloud.device(name) for name in ("press-07", "press-08")]
    chain = [(await registry.key_chain.sets(open_existing(cloud.settings.data_dir).sha256))[0]]
    with pytest.raises(CertificateError, match="the only one"):
        await keys.retire(old_id, old)
    with pytest.raises(UntrustedBundleError):
        await registry.publish(signed_with(NEW, biopsies.version(2)))
    with pytest.raises(CertificateError, match="cannot sign a key set"):
        await keys.add(NEW.public_key(), NEW)
    chain.append(await keys.add(NEW.public_key(), old))
    with pytest.raises(CertificateError, match="trusted already"):
        await keys.add(NEW.public_key(), old)
    assert await confirm(devices[0], chain[:1]) == chain[1:]
    with pytest.raises(CertificateError, match=biopsies.bundle.manifest.bundle_id):
        await keys.retire(old_id, NEW)
    second = await registry.publish(signed_with(NEW, biopsies.version(2)))
    assert await confirm(devices[0], chain) == []
    with pytest.raises(CertificateError, match=r"1 of 2 devices have not confirmed .*press-08"):
        await keys.retire(old_id, NEW)
    first, added = (await keys.report()).keys
    assert (first.key_id, first.devices, first.bundles) == (old_id, 1, ())
    assert (added.key_id, added.devices, added.bundles) == (NEW_ID, 1, (second.bundle_id,))
    assert await confirm(devices[1], chain) == []
    assert await registry.judging_bundle_id(biopsies.bundle.manifest.bundle_id) == biopsies.bundle.manifest.bundle_id
    await begin_rollout(cloud, await registry.publish(biopsies.version(3), make_current=False))
    with pytest.raises(CertificateError, match="whose rollout is under way"):
        await keys.retire(old_id, NEW, force=True)
    await end_rollout(cloud)
    chain.append(await keys.retire(old_id, NEW))
    assert await registry.judging_bundle_id(biopsies.bundle.manifest.bundle_id) == second.bundle_id
    assert await confirm(devices[1], chain[:1]) == chain[1:]  # a device that was away gets each step
    for refused in (registry.publish(biopsies.version(3)), registry.rollback("biopsy")):
        with pytest.raises(UntrustedBundleError):
            await refused
    (last,) = (await keys.report()).keys
    assert (last.key_id, last.devices) == (NEW_ID, 1)


async def test_a_device_enrolled_later_begins_with_the_present_set_and_a_stranger_gets_none(cloud, biopsies):
    keys = keys_of(cloud)
    present = await keys.add(NEW.public_key(), biopsies.key)
    device = await cloud.device()
    assert KeySet.from_message(device.key_set) == present
    assert await confirm(device, [present]) == []
    assert await confirm(device, []) == []  # an older agent, or one with a fixed key
    with pytest.raises(CertificateError, match="1 of 1 devices"):
        await keys.retire(NEW_ID, biopsies.key)
    await revoke(cloud.service.store, device.device_id)
    assert (await keys.retire(NEW_ID, biopsies.key)).serial == 3


async def test_the_same_bundle_signed_with_another_key_replaces_the_archive(cloud, biopsies):
    before = await cloud.service.registry.current("biopsy")
    await keys_of(cloud).add(NEW.public_key(), biopsies.key)
    after = await cloud.service.registry.publish(signed_with(NEW, biopsies.bundle))
    assert after.bundle_id == before.bundle_id
    assert after.edge_archive_sha256 != before.edge_archive_sha256
    await cloud.service.registry.verify(after)
    forced = await keys_of(cloud).retire(key_id(biopsies.key.public_key()), NEW, force=True)
    assert forced.key_ids == (NEW_ID,)


async def test_a_new_authority_begins_a_new_chain_with_the_keys_trusted_before(tmp_path, biopsies):
    settings = settings_for(tmp_path)
    first = prepare(settings.data_dir).sha256
    async with open_store(settings.data_dir) as store:
        registry = Registry(store, settings.data_dir, biopsies.key.public_key())
        added = await SigningKeys(store, registry, first).add(NEW.public_key(), biopsies.key)
        for path in (settings.data_dir / "pki").iterdir():
            path.unlink()
        second = prepare(settings.data_dir).sha256
        (root,) = await registry.key_chain.sets(second)
        assert (root.serial, root.content.keys, root.signature) == (3, added.content.keys, b"")
        await SigningKeys(store, registry, second).retire(NEW_ID, biopsies.key)
        assert [item.serial for item in await registry.key_chain.sets(second)] == [3, 4]


async def test_a_set_that_was_changed_in_the_store_is_not_trusted(cloud, biopsies):
    await keys_of(cloud).add(NEW.public_key(), biopsies.key)
    with sqlite3.connect(cloud.service.store.path) as connection:
        connection.execute("UPDATE key_sets SET signature = zeroblob(64) WHERE serial = 2")
    with pytest.raises(StorageError, match="damaged"):
        await cloud.service.registry.key_chain.keys()


def test_the_commands_change_and_list_the_keys(tmp_path, biopsies, monkeypatch):
    config = write_settings(tmp_path, biopsies.key)
    prepare(tmp_path / "data")
    signing = tmp_path / "home" / "signing.pem"
    monkeypatch.setenv("VEDETTE_HOME", str(signing.parent))
    from cryptography.hazmat.primitives import serialization as form

    signing.parent.mkdir()
    signing.write_bytes(biopsies.key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    new = tmp_path / "signing-2.pem"
    added = call("keys", "add", "--new", new, "--config", config)
    assert added.returncode == 0, added.stderr
    new_id = key_id(load_signing_key(new).public_key())
    assert f"Key {new_id} is trusted" in added.stdout
    report = tmp_path / "keys.json"
    listed = call("keys", "list", "--config", config, "--json", report)
    facts = json.loads(report.read_text())
    assert [key["key_id"] for key in facts["keys"]] == [key_id(biopsies.key.public_key()), new_id]
    assert listed.stdout.splitlines()[0].endswith(
        "from the start  confirmed by 0 of 0 devices  signs no current bundle"
    )
    again = call("keys", "add", f"{new}.pub", "--config", config, "--json", report)
    assert (again.returncode, json.loads(report.read_text())["status"]) == (7, "failed")
    assert "trusted already" in again.stderr
    retired = call("keys", "retire", key_id(biopsies.key.public_key()), "--signing-key", new, "--config", config)
    assert retired.stdout.strip().endswith(f"trusted keys: {new_id} (set 3).")


@pytest.mark.parametrize(
    "words",
    [
        ("publish", "{bundle}"),
        ("rollout", "biopsy", "--to", "biopsy-1-00000000", "--now"),
        ("rollout", "status", "biopsy"),
        ("keys", "list"),
    ],
)
def test_a_command_makes_no_key_of_its_own(tmp_path, biopsies, own_home, words):
    config = write_settings(tmp_path, biopsies.key)
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "bundle_key" not in line))
    prepare(tmp_path / "data")
    biopsies.bundle.save(tmp_path / "one.vedette")
    refused = call(*(word.format(bundle=tmp_path / "one.vedette") for word in words), "--config", config)
    assert refused.returncode == CertificateError.exit_code
    assert f"{own_home / 'signing.pem'}: this user has no key. Set bundle_key" in refused.stderr
    assert not own_home.exists()
