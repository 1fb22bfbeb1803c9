"""Faults while a bundle is fetched and swapped: the device always runs the old or the new one."""

import hashlib
import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.bundles.cache import BundleCache
from edge.bundles.installer import MAX_ATTEMPTS
from shared.bundle import Bundle, sign
from shared.errors import BundleError
from shared.signing_keys import load_trusted_key, public_pem
from tests.edge.bundles import tabular_bundle
from tests.edge.cloud_double import CloudDouble, chunks
from tests.edge.conftest import Enrol
from tests.edge.device import Device
from tests.edge.forked import Forked, agent
from tests.edge.odd_agents import agent_that_a_bundle_ends, impatient_agent
from vedette.v1 import fleet_pb2

STEPS = ("fsync", "replace", "unlink")  # functions of `os` that change the disk durably


def _obtain(cache: BundleCache, bundle: Bundle, fails: bool) -> None:
    """As the updater does it once a bundle is fetched."""
    archive, bundle_id = bundle.archive(edge_only=True), bundle.manifest.bundle_id
    if not cache.has(bundle_id):
        cache.partial(bundle_id).write_bytes(archive)
        cache.accept(bundle_id, hashlib.sha256(archive).digest())
    cache.begin_trial(bundle_id)
    if fails:
        cache.mark_failed("plant", bundle_id, "no scores")
    else:
        cache.make_current("plant", bundle_id)


def _kill_at(number: int) -> None:
    """End this process before the step of that number."""
    steps = itertools.count(1)

    def counted(step: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if next(steps) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **more)

        return call

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))


def _try_all_steps(folder: Path, key: Path, first: Bundle, second: Bundle, fails: bool) -> None:
    """In a process of one thread, which therefore may fork the one to be killed."""
    keys = [load_trusted_key(key)]
    (folder / "before").mkdir()
    _obtain(BundleCache(folder / "before", keys), first, False)
    found = set()
    for kill_at in itertools.count(1):
        here = folder / f"cache-{kill_at}"
        shutil.copytree(folder / "before", here)
        child = os.fork()
        if not child:
            _kill_at(kill_at)
            _obtain(BundleCache(here, keys), second, fails)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        found.add(_current(BundleCache(here, keys)))
        _obtain(BundleCache(here, keys), second, fails)  # after a restart all goes on
        cache = BundleCache(here, keys)
        assert _current(cache) == (first if fails else second).manifest.bundle_id
        assert bool(cache.failure(second.manifest.bundle_id)) == fails
        if os.WIFEXITED(status):
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert os.WEXITSTATUS(status) == 0
    assert kill_at > 8
    assert found == {first.manifest.bundle_id, (first if fails else second).manifest.bundle_id}


def _current(cache: BundleCache) -> str:
    bundle = cache.current("plant")
    assert bundle is not None
    return bundle.manifest.bundle_id


@pytest.mark.parametrize("fails", [False, True])
def test_a_kill_at_each_step_of_the_disk_leaves_the_old_bundle_or_the_new_one(
    tmp_path: Path, tabular: Bundle, signing_key: Ed25519PrivateKey, fails: bool
) -> None:
    second = tabular_bundle(signing_key, version=2)
    (tmp_path / "key").write_bytes(public_pem(signing_key.public_key()))
    process = Forked(tmp_path / "log", _try_all_steps, tmp_path, tmp_path / "key", tabular, second, fails)
    assert process.wait(60) == 0, (tmp_path / "log").read_text()


@pytest.fixture
def busy(device: Device, enrol: Enrol, cloud: CloudDouble) -> Device:
    enrol(cloud.address)
    device.settings["sources"][0] |= {"rate_per_s": 400, "loop": True, "batch_size": 16, "bundle_name": "plant"}
    device.settings["uplink"]["heartbeat_s"] = 0.1
    device.write()
    return device


def running(device: Device) -> str:
    status = device.status()
    if device.process is None or status.get("process_id") != device.process.pid:
        return ""
    return str(status["sources"]["plant"]["bundle_id"])


@pytest.mark.system
def test_an_agent_killed_while_it_fetches_goes_on_from_there_and_always_runs_one_of_both(
    busy: Device, cloud: CloudDouble, signing_key: Ed25519PrivateKey, tabular: Bundle
) -> None:
    second = tabular_bundle(signing_key, version=2)
    size, chance, seen = len(second.archive(edge_only=True)), random.Random(3), []
    cloud.publish(second)
    cloud.chunk_pause_s = 1.0 / (size / 1000)  # a second for the whole
    for _ in range(6):
        busy.process = Forked(busy.log, agent, busy.config)
        busy.until(lambda: running(busy))
        seen.append(running(busy))
        time.sleep(chance.uniform(0.0, 0.3))
        busy.kill()
    busy.process = Forked(busy.log, agent, busy.config)
    busy.until(lambda: running(busy) == second.manifest.bundle_id)
    assert busy.terminate() == 0, busy.text()
    assert set(seen) <= {tabular.manifest.bundle_id, second.manifest.bundle_id}
    assert seen == sorted(seen, key=lambda bundle_id: bundle_id == second.manifest.bundle_id)  # never back
    assert len(cloud.fetch_offsets) > 1
    assert cloud.fetch_offsets == sorted(cloud.fetch_offsets)
    assert cloud.fetch_offsets[-1] > 0


@pytest.mark.system
def test_a_bundle_that_ends_the_process_is_given_up_and_the_one_before_runs_on(
    busy: Device, cloud: CloudDouble, signing_key: Ed25519PrivateKey, tabular: Bundle
) -> None:
    second = tabular_bundle(signing_key, version=2)
    cloud.publish(second)
    for _ in range(MAX_ATTEMPTS):
        busy.process = Forked(busy.log, agent_that_a_bundle_ends, busy.config, second.manifest.bundle_id)
        assert busy.wait() == -signal.SIGKILL  # and a service manager starts it again
    busy.process = Forked(busy.log, agent_that_a_bundle_ends, busy.config, second.manifest.bundle_id)
    busy.until(lambda: busy.counters().get("bundles_refused"))
    beats = len(cloud.heartbeats)
    busy.until(lambda: len(cloud.heartbeats) > beats + 1)
    assert running(busy) == tabular.manifest.bundle_id
    assert f"ended {MAX_ATTEMPTS} times" in busy.text()
    assert busy.terminate() == 0, busy.text()


def flipped(archive: bytes, start: int) -> Iterator[fleet_pb2.Chunk]:
    for chunk in chunks(archive, start):
        yield fleet_pb2.Chunk(offset=chunk.offset, data=bytes([chunk.data[0] ^ 1]) + chunk.data[1:])


def truncated(archive: bytes, start: int) -> Iterator[fleet_pb2.Chunk]:
    yield from itertools.islice(chunks(archive, start), 2)


def twice(archive: bytes, start: int) -> Iterator[fleet_pb2.Chunk]:
    for chunk in chunks(archive, start):
        yield from (chunk, chunk)


def endless(archive: bytes, start: int) -> Iterator[fleet_pb2.Chunk]:
    yield from chunks(archive + bytes(len(archive)), start)


def empty(archive: bytes, start: int) -> Iterator[fleet_pb2.Chunk]:
    for _ in range(1_000_000):
        yield fleet_pb2.Chunk(offset=start)


def another_s(archive: bytes, start: int) -> Iterator[fleet_pb2.Chunk]:
    yield from chunks(archive[::-1], start)


@pytest.mark.system
def test_whatever_comes_instead_of_a_bundle_the_old_one_runs_until_the_new_one_is_whole(
    busy: Device, cloud: CloudDouble, signing_key: Ed25519PrivateKey, tabular: Bundle
) -> None:
    faults = [flipped, another_s, empty, truncated, twice, endless]

    def next_chunks(archive: bytes, start: int) -> Iterator[fleet_pb2.Chunk]:
        return (faults.pop(0) if faults else chunks)(archive, start)

    cloud.chunks_of = next_chunks
    second = tabular_bundle(signing_key, version=2)
    cloud.publish(second)
    busy.process = Forked(busy.log, impatient_agent, busy.config)
    seen = set()
    busy.until(lambda: seen.add(running(busy)) or second.manifest.bundle_id in seen)
    assert faults == []
    assert seen - {""} == {tabular.manifest.bundle_id, second.manifest.bundle_id}
    assert busy.terminate() == 0, busy.text()
    counts = busy.counters()
    assert (counts["bundles_refused"], counts["bundle_rollbacks"], counts["bundle_swaps"]) == (0, 0, 1)


@pytest.mark.system
def test_the_creation_time_of_a_bundle_does_not_matter(
    busy: Device, cloud: CloudDouble, signing_key: Ed25519PrivateKey
) -> None:
    busy.start()
    busy.until(lambda: running(busy))
    for version, born in ((2, "2099-01-01T00:00:00+00:00"), (3, "1970-01-01T00:00:00+00:00")):
        bundle = tabular_bundle(signing_key, version=version)
        bundle = sign(bundle.manifest.model_copy(update={"created_at": born}), dict(bundle.files), signing_key)
        cloud.publish(bundle)
        busy.until(lambda bundle=bundle: running(busy) == bundle.manifest.bundle_id)
    assert busy.terminate() == 0, busy.text()


def test_an_index_that_cannot_be_read_is_no_end(tmp_path: Path, signing_key: Ed25519PrivateKey) -> None:
    for content in (b"", b"[]", b'{"names": {}, "failed": {}, "trials": 3}', b"\xff" * 100):
        (tmp_path / "index.json").write_bytes(content)
        cache = BundleCache(tmp_path, [signing_key.public_key()])
        assert cache.current("plant") is None
        assert cache.begin_trial("plant-1") == 1
    with pytest.raises(BundleError):
        cache.partial("../plant")
