"""Bundles of several machines: one publishes, the others find the archives in a folder or in S3."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.settings import CloudSettings, StoreLocation
from cloud.store import open_store
from cloud.store.objects import ObjectStore
from cloud.store.registry import Registry, publish_to
from cloud.store.sqlite.store import DATABASE_FILE
from shared.bundle import sign
from shared.errors import BundleError, StorageError
from tests.cloud.console.filled_store import KEY, SHUTTLE, empty_database, manifest


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    """URL of an S3 server with the bucket `vedette`."""
    from moto.server import ThreadedMotoServer  # half a second, which other workers need not spend

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/shared"
    import boto3

    address = request.getfixturevalue("s3_address")
    for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    boto3.client("s3").create_bucket(Bucket="vedette")
    return "s3://vedette/bundles"


def test_an_archive_that_one_machine_publishes_is_found_by_another(tmp_path: Path, url: str) -> None:
    first, second = (StoreLocation(tmp_path / name, bundles_url=url) for name in ("first", "second"))
    first.data_dir.mkdir()
    (first.data_dir / DATABASE_FILE).write_bytes(empty_database())
    bundle = sign(manifest(SHUTTLE, 1), {"edge/note.json": b"{}"}, KEY)

    async def work() -> None:
        entry = await publish_to(first, bundle, KEY.public_key())
        async with open_store(first) as store:  # the store of both machines; `second` has files of its own
            registry = Registry(store, second, KEY.public_key())
            archive = await registry.edge_archive(entry.bundle_id)
            assert archive.parent == second.data_dir / "bundles"
            assert archive.stat().st_size == entry.edge_archive_bytes
            await registry.verify(entry)
            assert (await registry.bundle(entry.bundle_id)).files == bundle.files
            alone = Registry(store, StoreLocation(tmp_path / "third"), KEY.public_key())
            with pytest.raises(BundleError):
                await alone.verify(entry)

    asyncio.run(work())


def test_objects_that_cannot_be_reached_are_a_storage_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for call in (
        lambda objects: objects.write("name", b"data"),
        lambda objects: objects.read("name"),
    ):
        with pytest.raises(StorageError, match="Check the URL"):
            call(ObjectStore(f"file://{tmp_path}/file/below"))
    assert ObjectStore(f"file://{tmp_path}").read("missing") is None


@pytest.mark.parametrize("url", ["http://host/x", "s3://", "file://host/x", "s3://key:secret@bucket/x", "bundles"])
def test_a_bundle_store_is_a_bucket_or_a_folder_without_credentials(url: str) -> None:
    with pytest.raises(ValueError, match="bundle_store"):
        CloudSettings(bundle_store=url)
