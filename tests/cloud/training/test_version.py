"""Version of a new bundle."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from cloud.training.version import choose_version
from shared.bundle import sign
from shared.errors import SettingsError
from shared.signing_keys import public_pem
from tests.cloud.console.filled_store import KEY, SHUTTLE, manifest, open_store


def archive(path: Path, version: int, name: str = SHUTTLE.bundle_name) -> Path:
    made = manifest(replace(SHUTTLE, bundle_name=name), version)
    path.write_bytes(sign(made, {"edge/note.json": b"{}"}, KEY).archive())
    return path


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Settings of a service that has the versions 1 and 5 of "shuttle", and 9 of another name."""

    async def fill() -> None:
        store, registry = open_store(tmp_path / "data")
        async with store:
            for version in (1, 5):
                await registry.publish(sign(manifest(SHUTTLE, version), {"edge/note.json": b"{}"}, KEY))
            other = manifest(replace(SHUTTLE, bundle_name="other"), 9)
            await registry.publish(sign(other, {"edge/note.json": b"{}"}, KEY))

    asyncio.run(fill())
    (tmp_path / "key.pem").write_bytes(public_pem(KEY.public_key()))
    path = tmp_path / "cloud.toml"
    path.write_text(f'data_dir = "{tmp_path}/data"\nbundle_key = "{tmp_path}/key.pem"\n')
    return path


def test_the_next_free_version_follows_output_and_registry(tmp_path: Path, registry: Path) -> None:
    output = tmp_path / "shuttle.vedette"
    assert choose_version("shuttle", 0, output, None)[0] == 1
    archive(output, 2)
    assert choose_version("shuttle", 0, output, None)[0] == 3
    version, sentence = choose_version("shuttle", 0, output, registry)
    assert version == 6
    assert "version 5 is shuttle-5-" in sentence
    assert choose_version("new", 0, output, registry)[0] == 1
    assert choose_version("shuttle", 4, output, registry)[0] == 4


@pytest.mark.parametrize(("asked", "place"), [(2, "shuttle.vedette"), (5, "in the registry of")])
def test_a_version_that_is_taken_is_refused_with_the_next_free_one(
    tmp_path: Path, registry: Path, asked: int, place: str
) -> None:
    output = archive(tmp_path / "shuttle.vedette", 2)
    with pytest.raises(SettingsError, match=f"{place}.*next free version is 6"):
        choose_version("shuttle", asked, output, registry)


def test_another_file_at_the_output_takes_no_version(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("no bundle")
    assert choose_version("shuttle", 0, tmp_path / "notes", None)[0] == 1


def test_a_registry_that_is_not_there_is_an_error_and_makes_nothing(tmp_path: Path) -> None:
    config = tmp_path / "cloud.toml"
    config.write_text(f'data_dir = "{tmp_path}/none"\n')
    with pytest.raises(SettingsError, match="no service here"):
        choose_version("shuttle", 0, tmp_path / "b", config)
    assert list(tmp_path.iterdir()) == [config]
