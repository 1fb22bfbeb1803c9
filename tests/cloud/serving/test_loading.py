"""Loading of bundles: failures are remembered for a while, and the oldest bundles leave."""

import pytest

from cloud.serving.cache import AnalysisCache
from cloud.serving.worker import Worker
from shared.errors import BundleError, StorageError
from tests.cloud.serving.test_batcher import Recorder


async def test_a_bundle_that_cannot_be_loaded_fails_at_once_and_is_retried_later(biopsies):
    attempts: list[str] = []

    async def open_bundle(bundle_id: str):
        attempts.append(bundle_id)
        raise BundleError("damaged")

    worker = Worker("test")
    cache = AnalysisCache(open_bundle, lambda bundle: Recorder(), worker, 4, 2**30)
    for _ in range(3):
        with pytest.raises(BundleError, match="damaged"):
            await cache.get("a-1-0")
    assert attempts == ["a-1-0"]
    worker.stop(1)


async def test_a_store_error_does_not_mark_the_bundle_as_damaged():
    answers = [StorageError("locked"), BundleError("damaged")]

    async def open_bundle(bundle_id):
        raise answers.pop(0)

    worker = Worker("test")
    cache = AnalysisCache(open_bundle, lambda bundle: Recorder(), worker, 4, 2**30)
    with pytest.raises(StorageError):
        await cache.get("a-1-0")
    with pytest.raises(BundleError, match="damaged"):  # retried at once
        await cache.get("a-1-0")
    worker.stop(1)


async def test_only_the_most_recently_used_bundles_stay_in_memory(biopsies):
    loaded: list[int] = []

    async def open_bundle(bundle_id: str):
        return biopsies.version(int(bundle_id))

    def load(bundle):
        loaded.append(bundle.manifest.version)
        return Recorder()

    worker = Worker("test")
    cache = AnalysisCache(open_bundle, load, worker, 2, 2**30)
    for bundle_id in ("1", "2", "1", "3", "1", "2"):
        await cache.get(bundle_id)
    assert loaded == [1, 2, 3, 2]
    worker.stop(1)
