"""A complete service whose store is PostgreSQL, from a device's submit to the commands of an administrator."""

import asyncio
import json
import urllib.request
from pathlib import Path

from pyarrow import parquet
from typer.testing import CliRunner

from cloud.service.main import _make_console
from cloud.store.api_tokens import Scope, add_api_token
from cloud.store.retention import remove_old
from shared import cli
from shared.signing_keys import public_pem
from tests.accounts import sign_in
from tests.cloud.service.harness import message, running, settings_for
from vedette.v1 import detection_pb2


def answer(url: str, token: str = "", session: dict[str, str] | None = None) -> dict:
    headers = {"Authorization": f"Bearer {token}"} if token else session or {}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def run(config: Path, *words: str) -> str:
    result = CliRunner().invoke(cli.build("cloud").root, ["cloud", *words, "--config", str(config)])
    assert result.exception is None, result.exception
    return result.stdout


async def test_a_service_on_postgresql_judges_shows_and_exports(tmp_path, biopsies, postgres_url) -> None:
    settings = settings_for(tmp_path, store_url=postgres_url)
    config = tmp_path / "cloud.toml"
    bundle, key = tmp_path / "biopsy.vedette", tmp_path / "key.pem"
    bundle.write_bytes(biopsies.bundle.archive())
    key.write_bytes(public_pem(biopsies.key.public_key()))
    config.write_text(
        f'data_dir = "{settings.data_dir}"\nstore_url = "{postgres_url}"\nbundle_key = "{key}"\n'
        'advertised_address = "localhost:1"\nadvertised_enrolment_address = "localhost:2"\n'
    )
    async with running(settings, biopsies.key, make_console=_make_console) as cloud:
        assert "biopsy-1-" in await asyncio.to_thread(run, config, "publish", str(bundle))
        device = await cloud.device("press-07")
        sent = [message(row) for row in (*biopsies.normal[:3], *biopsies.anomalous[:2])]
        assert {result.status for result in await device.submit(sent)} == {detection_pb2.SUBMIT_STATUS_ACCEPTED}
        again = await device.submit(sent)
        assert {result.status for result in again} == {detection_pb2.SUBMIT_STATUS_DUPLICATE}
        verdicts = await device.verdicts(5)
        assert set(verdicts) == {item.sample_id for item in sent}
        console = cloud.service.addresses.console_url
        session = (await sign_in(cloud.service.store)).headers
        listed = await asyncio.to_thread(answer, f"{console}api/verdicts", session=session)
        await add_api_token(cloud.service.store, "abc", "secret", name="CI", scopes=list(Scope), expires_at_s=9e9)
        through_api = await asyncio.to_thread(answer, f"{console}api/v1/verdicts", "vedette_abc_secret")
        assert {len(listed["verdicts"]), len(through_api["items"])} == {5}, (listed, through_api)
        assert "press-07" in await asyncio.to_thread(run, config, "devices")
        assert (await asyncio.to_thread(run, config, "token", "press-08")).strip()
        assert "revision" in await asyncio.to_thread(run, config, "migrate")
        await asyncio.to_thread(run, config, "export", "--output", str(tmp_path / "out"), "--payloads")
        assert parquet.read_table(tmp_path / "out" / "verdicts.parquet").num_rows == 5
        removed = await remove_old(cloud.service.store, payloads_days=1e-9, verdicts_days=1e-9, events_days=1e-9)
        assert removed["verdicts"] == 5
        assert not (await asyncio.to_thread(answer, f"{console}api/verdicts", session=session))["verdicts"]
        assert (await asyncio.to_thread(answer, f"{console}ready"))["status"] == "ready"
