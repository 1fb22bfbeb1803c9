"""Bundles in memory stay within their budget."""

import asyncio

import numpy as np
import pytest
import torch

from cloud.serving.analysis import Analysis
from cloud.serving.cache import AnalysisCache
from cloud.serving.resident_memory import resident_bytes
from cloud.serving.worker import Worker
from shared.errors import BundleError


class Holder:
    """Judge that holds an array of `size` bytes."""

    def __init__(self, size: int) -> None:
        self.weights = np.zeros(size, np.uint8)


@pytest.fixture
def worker():
    worker = Worker("test")
    yield worker
    worker.stop(1)


def cache_of(worker, biopsies, sizes, budget, *, loaded=None, load=None):
    async def open_bundle(bundle_id: str):
        return biopsies.version(int(bundle_id))

    def make(bundle):
        version = bundle.manifest.version
        if loaded is not None:
            loaded.append(version)
        return Holder(sizes[version])

    return AnalysisCache(open_bundle, load or make, worker, 8, budget)


async def test_the_least_recently_used_bundles_leave_when_the_budget_is_used_up(worker, biopsies):
    loaded: list[int] = []
    cache = cache_of(worker, biopsies, {1: 400, 2: 400, 3: 300, 4: 5000}, 1000, loaded=loaded)
    for bundle_id in ("1", "2", "1", "3"):
        await cache.get(bundle_id)
        assert cache.resident_bytes <= 1000
    assert [cache.is_decided(each) for each in ("1", "2", "3")] == [True, False, True]
    await cache.get("4")  # larger than the budget: it stays alone
    assert (len(cache), cache.resident_bytes) == (1, 5000)
    await cache.get("1")
    assert (len(cache), cache.resident_bytes) == (1, 400)
    assert loaded == [1, 2, 3, 4, 1]


async def test_a_bundle_that_runs_out_of_memory_is_loaded_alone(worker, biopsies):
    resident: list[int] = []

    def load(bundle):
        resident.append(len(cache))
        if bundle.manifest.version == 3 and len(cache):
            raise torch.OutOfMemoryError("CUDA")
        return Holder(10)

    cache = cache_of(worker, biopsies, {}, 1000, load=load)
    for bundle_id in ("1", "2", "3"):
        await cache.get(bundle_id)
    assert resident == [0, 1, 2, 0]
    assert len(cache) == 1


async def test_a_bundle_without_memory_fails_once_and_the_others_go_on(worker, biopsies):
    def load(bundle):
        if bundle.manifest.version == 2:
            raise MemoryError
        return Holder(10)

    cache = cache_of(worker, biopsies, {}, 1000, load=load)
    with pytest.raises(BundleError, match="MemoryError"):
        await cache.get("2")
    await asyncio.gather(*(cache.get("1") for _ in range(3)))


def test_the_measured_bytes_of_an_analysis_are_those_of_its_tensors(biopsies):
    analysis = Analysis.load(biopsies.bundle, "cpu")
    states = sum(tensor.nbytes for each in analysis.analyzers.values() for tensor in each.state().values())
    assert states <= resident_bytes(analysis) <= states + 100_000


def test_shared_memory_counts_once():
    weights = torch.zeros(1000)
    table = np.zeros(1000)
    assert resident_bytes([weights, weights[:10], weights.view(10, 100), table, table[5:]]) == 4000 + 8000
