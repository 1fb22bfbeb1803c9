import asyncio
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.serving.replicas.messages import answers_of
from cloud.serving.replicas.remote_judge import bundle_reference
from cloud.serving.replicas.replica import Replica
from shared.errors import BundleError, StorageError
from tests.cloud.serving.replicas.clusters import local_replica, replica_options, stored
from vedette.v1 import judge_pb2


def load(replica, bundle, key):
    replica.judge_of(bundle, [key.public_key()])


def test_a_bundle_comes_from_the_bundle_store(tmp_path, biopsies):
    stored(tmp_path, biopsies.bundle)
    elsewhere = replica_options(tmp_path / "data", bundles_url=f"file://{tmp_path}/bundles")
    with local_replica(elsewhere) as replica:
        load(replica, biopsies.bundle, biopsies.key)
        with pytest.raises(StorageError, match="Publish"):
            load(replica, biopsies.version(2), biopsies.key)
    assert not (tmp_path / "data").exists()  # no copy on the machine of the replica


def test_a_bundle_that_is_not_on_the_machine_is_asked_for_again(tmp_path, biopsies):
    with local_replica(replica_options(tmp_path)) as replica:
        with pytest.raises(StorageError, match="Set bundle_store"):
            load(replica, biopsies.bundle, biopsies.key)
        stored(tmp_path, biopsies.bundle)
        load(replica, biopsies.bundle, biopsies.key)


def test_a_bundle_is_loaded_only_with_a_trusted_signature(tmp_path, biopsies):
    options = replica_options(stored(tmp_path, biopsies.bundle))
    with local_replica(options) as replica, pytest.raises(BundleError, match="no trusted key signed it"):
        load(replica, biopsies.bundle, Ed25519PrivateKey.generate())


def test_a_bundle_is_loaded_only_with_the_contents_that_are_asked_for(tmp_path, biopsies):
    other = biopsies.version(3)
    path = stored(tmp_path, biopsies.bundle) / "bundles" / f"{other.manifest.bundle_id}.vedette"
    biopsies.bundle.save(path)  # valid, but another bundle
    with local_replica(replica_options(tmp_path)) as replica, pytest.raises(BundleError, match="it is damaged"):
        load(replica, other, biopsies.key)


def test_the_least_recently_used_bundle_leaves_the_memory(tmp_path, biopsies):
    bundles = [biopsies.version(number) for number in (1, 2, 3)]
    for each in bundles:
        stored(tmp_path, each)
    with local_replica(replica_options(tmp_path, cached_bundles=2)) as replica:
        for each in bundles:
            load(replica, each, biopsies.key)
        cache = replica.replica._cache
        assert [cache.is_decided(each.manifest.bundle_id) for each in bundles] == [False, True, True]


async def test_a_request_that_takes_too_long_makes_the_replica_unhealthy(tmp_path, biopsies, monkeypatch):
    began, end = threading.Event(), threading.Event()

    def answer(judge, request):
        began.set()
        end.wait(30)
        return judge_pb2.JudgeReply()

    monkeypatch.setattr("cloud.serving.replicas.replica._answer", answer)
    replica = Replica(replica_options(stored(tmp_path, biopsies.bundle), request_s=0.05))
    reference = bundle_reference(biopsies.bundle.manifest, [biopsies.key.public_key()])
    replica.check_health()
    call = asyncio.create_task(replica.judge(judge_pb2.JudgeRequest(bundle=reference).SerializeToString()))
    await asyncio.to_thread(began.wait, 30)
    await asyncio.sleep(0.1)
    with pytest.raises(TimeoutError, match="longer"):
        replica.check_health()
    end.set()
    assert answers_of(judge_pb2.JudgeReply.FromString(await call)) == []
    replica.check_health()
    replica.stop()
