"""A store with real bundles, samples and the verdicts of their own analyses."""

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloud.evidence.bundle_facts import BundleShelf
from cloud.evidence.reading import Evidence, read_evidence
from cloud.store import Store
from cloud.store.registry import Registry
from tests.cloud.console.filled_store import Fleet, add_devices, open_store
from tests.cloud.evidence import plant


@dataclass
class Site:
    """Store of a plant, a bank of biopsies, and the generated fleet of the console's tests."""

    store: Store
    registry: Registry
    shelf: BundleShelf
    fleet: Fleet

    async def evidence(self, sample_id: uuid.UUID) -> Evidence:
        found = await read_evidence(self.store, self.shelf, sample_id)
        assert isinstance(found, Evidence)
        return found

    async def plant(self) -> list[uuid.UUID]:
        return await plant.send_plant(self.store, time.time() - 5)

    async def bank(self) -> list[uuid.UUID]:
        return await plant.send_bank(self.store, time.time() - 5)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    store, registry = open_store(tmp_path)
    async with store:
        fleet = Fleet(store, registry)
        await fleet.enrol()
        await add_devices(store, plant.PLANT, plant.BANK)
        await plant.publish(registry, plant.plant_bundle(), plant.bank_bundle())
        yield Site(store, registry, BundleShelf(registry.bundle), fleet)
