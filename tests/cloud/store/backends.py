"""Marks of tests that are about one back end, and stores whose large values lie in segments."""

import os
import time
import uuid
from pathlib import Path

import pytest

from cloud.settings import StoreLocation
from cloud.store import Store
from cloud.store.inbox_request import InboxRequest
from cloud.store.ingest import inbox_request
from cloud.store.sqlite.store import DATABASE_FILE
from tests.cloud.console.filled_store import empty_database
from tests.cloud.store.test_group_commit import sample
from vedette.v1 import sample_pb2

only_sqlite = pytest.mark.parametrize("location", ["sqlite"], indirect=True)
only_postgresql = pytest.mark.parametrize("location", ["postgresql"], indirect=True)


def segment_location(request: pytest.FixtureRequest, folder: Path) -> StoreLocation:
    """Location of an empty store: SQLite with segments in its data directory, or PostgreSQL with segments in S3."""
    if request.param == "sqlite":
        (folder / DATABASE_FILE).write_bytes(empty_database())
        return StoreLocation(folder)
    prefix = f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}"
    return StoreLocation(folder, request.getfixturevalue("postgres_url"), payloads_url=prefix)


def with_payload(size: int) -> sample_pb2.Sample:
    """Sample with a random payload of this size."""
    made = sample()
    made.payload.data = os.urandom(size)
    return made


def large_request(*sizes: int, device_id: str = "one") -> tuple[InboxRequest, dict[bytes, bytes]]:
    """Request with payloads of these sizes, and the payload of each of its samples by id."""
    made = [with_payload(size) for size in sizes]
    data = {item.sample_id: item.payload.data for item in made}
    return inbox_request(device_id, time.time(), made, takes_payloads=True), data


async def segment_names(store: Store) -> list[str]:
    """Names of the segments of a store."""
    objects = await store.segments.objects()
    return [name for folder in objects.folders() for name in objects.sizes(folder)]
