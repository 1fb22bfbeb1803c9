"""Stores of each back end, with two devices in them."""

import time

import numpy as np
import pytest
from sqlalchemy import insert

from cloud.settings import StoreLocation
from cloud.store import open_store
from cloud.store.ingest import Received, store_samples
from cloud.store.schema import devices
from cloud.store.sqlite.store import DATABASE_FILE
from shared.modality import Modality
from shared.samples import Route, Sample, Screening, new_sample_id
from shared.wire import encode_payload
from tests.cloud.console.filled_store import empty_database


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path):
    """Location of an empty store of each back end."""
    if request.param == "postgresql":
        return StoreLocation(tmp_path, request.getfixturevalue("postgres_url"))
    (tmp_path / DATABASE_FILE).write_bytes(empty_database())
    return StoreLocation(tmp_path)


@pytest.fixture(scope="session")
def s3_address():
    """URL of an S3 server."""
    from moto.server import ThreadedMotoServer  # half a second, which other workers need not spend

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_address, monkeypatch):
    """URL of an S3 bucket, whose server is in the environment."""
    import boto3

    for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_address)
    boto3.client("s3").create_bucket(Bucket="vedette")
    return "s3://vedette"


@pytest.fixture
async def store(location):
    async with open_store(location) as store:
        async with store.writing() as connection:
            rows = [
                {"device_id": name, "enrolled_at_s": 0.0, "certificate_serial": "1", "certificate_expires_at_s": 9e9}
                for name in ("one", "two")
            ]
            await connection.execute(insert(devices), rows)
        yield store


@pytest.fixture
def add(store):
    """Store new samples of a device; their ids."""

    async def add(device_id: str = "one", count: int = 1, score: float = 1.0) -> list[bytes]:
        values = np.arange(3, dtype=np.float32)
        edge_map = np.arange(6, dtype=np.uint8).reshape(2, 3)
        received = [
            Received(
                Sample(new_sample_id(), "lab", Modality.TABULAR, time.time(), f"row {index}", values),
                Screening(score, 0.01, False, Route.FORWARD, "biopsy-1-00000000", "cal", "int8", edge_map),
                encode_payload(values, Modality.TABULAR),
            )
            for index in range(count)
        ]
        await store_samples(store, device_id, received, time.time())
        return [item.sample.sample_id.bytes for item in received]

    return add
