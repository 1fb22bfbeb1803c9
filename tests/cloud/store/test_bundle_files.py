"""Bundles of several machines: one publishes, the others find the archives in a folder or in S3."""

import asyncio
from pathlib import Path

import pytest

from cloud.settings import CloudSettings, StoreLocation
from cloud.store import open_store
from cloud.store.objects import objects_at
from cloud.store.registry import Registry, publish_to
from cloud.store.sqlite.store import DATABASE_FILE
from shared.bundle import sign
from shared.errors import BundleError, StorageError
from tests.cloud.console.filled_store import KEY, SHUTTLE, empty_database, manifest


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/shared"
    return f"{request.getfixturevalue('bucket')}/bundles"


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


def test_objects_that_cannot_be_reached_are_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for call in (
        lambda objects: objects.write("name", b"data"),
        lambda objects: objects.read("name"),
    ):
        with pytest.raises(StorageError, match="Check the URL"):
            call(objects_at(f"file://{tmp_path}/file/below"))
    assert objects_at(f"file://{tmp_path}").read("missing") is None


@pytest.mark.parametrize("url", ["http://host/x", "s3://", "file://host/x", "s3://key:secret@bucket/x", "bundles"])
def test_a_bundle_store_is_a_bucket_or_a_folder_without_credentials(url: str) -> None:
    with pytest.raises(ValueError, match="bundle_store"):
        CloudSettings(bundle_store=url)
