"""A service with a bundle, and a device that is enrolled at it."""

import pytest
from typer.testing import CliRunner

from shared.cli import build
from tests.cloud.service.harness import running, settings_for


@pytest.fixture
async def cloud(tmp_path, biopsies):
    """A service with the bundle published."""
    rare = {"check_every_s": 3600}  # tests of notices do without a service
    async with running(settings_for(tmp_path, notices=rare), biopsies.key) as result:
        await result.service.registry.publish(biopsies.bundle)
        yield result


@pytest.fixture
async def device(cloud):
    return await cloud.device()


@pytest.fixture
def group_command(cloud, tmp_path):
    """Call `vedette cloud group` in this process, beside the running service."""
    config = tmp_path / "cloud.toml"
    config.write_text(f'data_dir = "{cloud.settings.data_dir}"\n')
    tree = build("cloud").root

    def call(*words: str):
        return CliRunner().invoke(tree, ["cloud", "group", *words, "--config", str(config)])

    return call
