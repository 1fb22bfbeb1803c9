"""`vedette federated run` refuses unusable requests, and writes valid JSON after a failure."""

import asyncio
import fcntl
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import save
from typer.testing import CliRunner

from cloud.federation.rounds import RoundsRequest, run_rounds
from cloud.rollouts.stages import Stage
from cloud.settings import StoreLocation
from cloud.store import open_store
from cloud.store.migrate import migrate
from cloud.store.registry import Registry, publish_to
from cloud.store.rollouts import begin
from shared import cli, home
from shared.bundle import HEAD_FILE, InputSpec, Manifest, sign
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.errors import (
    BundleError,
    BundleMismatchError,
    CertificateError,
    ConnectionFailedError,
    FederationError,
    RolloutError,
    SettingsError,
    VedetteError,
)
from shared.federation import Address, take_port
from shared.modality import Modality


def publish(
    data_dir: Path, modality: Modality, name: str = "pump", *, version: int = 3, make_current: bool = True
) -> None:
    """A bundle with a head and nothing else, in a registry of its own."""
    manifest = Manifest(
        name=name,
        version=version,
        created_at="2026-01-01T00:00:00+00:00",
        modality=modality,
        input=InputSpec(channels=("a", "b")),
        artefacts=(),
        preferred_artefact="",
        parity={},
        tolerances={},
        training={},
        files={},
    )
    bundle = sign(manifest, {HEAD_FILE: save(TimeEstimationHead(2, (4,)).to_arrays())}, home.signing_key())
    data_dir.mkdir(exist_ok=True)
    migrate(data_dir)
    asyncio.run(publish_to(data_dir, bundle, home.trusted_key(), make_current=make_current))


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[[str], RoundsRequest]:
    def make(name: str) -> RoundsRequest:
        return RoundsRequest(
            bundle_name=name,
            store=StoreLocation(tmp_path / "data"),
            state_dir=tmp_path / "state",
            address=take_port(Address("127.0.0.1", 0)),  # where nobody listens
            authority=None,
            wait_s=0.0,
        )

    return make


def run(request: RoundsRequest) -> None:
    run_rounds(request, home.signing_key(), report=lambda _: None)


def test_without_a_store_there_is_nothing_to_start_from(request_for: Callable[[str], RoundsRequest]) -> None:
    with pytest.raises(SettingsError, match="no service here"):
        run(request_for("pump"))
    assert not request_for("pump").state_dir.exists()


def test_an_unknown_bundle_is_reported_with_the_known_ones(
    tmp_path: Path, request_for: Callable[[str], RoundsRequest]
) -> None:
    publish(tmp_path / "data", Modality.TABULAR)
    with pytest.raises(BundleError, match="No bundle 'valve' in the registry, which has pump"):
        run(request_for("valve"))


def test_a_name_with_a_rollout_under_way_is_refused(
    tmp_path: Path, request_for: Callable[[str], RoundsRequest]
) -> None:
    """A round publishes its result, which must not happen between the stages of a rollout."""
    for version in (3, 4):
        publish(tmp_path / "data", Modality.TABULAR, version=version, make_current=version == 3)

    async def start() -> None:
        async with open_store(tmp_path / "data") as store:
            (newest, _) = await Registry(store, tmp_path / "data", home.trusted_key()).versions("pump")
            stages = [Stage(name="wave 100 %", percent=100)]
            await begin(store, "pump", newest.bundle_id, stages, author="ada", reason="", now_s=0.0)

    asyncio.run(start())
    with pytest.raises(RolloutError, match="is under way"):
        run(request_for("pump"))


def test_an_image_bundle_cannot_take_part(tmp_path: Path, request_for: Callable[[str], RoundsRequest]) -> None:
    publish(tmp_path / "data", Modality.IMAGE)
    with pytest.raises(BundleMismatchError, match="tabular and series"):
        run(request_for("pump"))


def test_a_bundle_of_another_signer_is_refused(tmp_path: Path, request_for: Callable[[str], RoundsRequest]) -> None:
    publish(tmp_path / "data", Modality.TABULAR)
    home.signing_key_path().unlink()
    with pytest.raises(BundleError, match="not signed by a trusted key"):
        run(request_for("pump"))


def test_an_absent_server_is_reported(tmp_path: Path, request_for: Callable[[str], RoundsRequest]) -> None:
    publish(tmp_path / "data", Modality.TABULAR)
    with pytest.raises(ConnectionFailedError, match="start it with vedette federated server"):
        run(request_for("pump"))
    assert not (tmp_path / "state" / "runs").exists()


def test_two_runs_at_once_are_refused(tmp_path: Path, request_for: Callable[[str], RoundsRequest]) -> None:
    publish(tmp_path / "data", Modality.TABULAR)
    (tmp_path / "state").mkdir()
    with (tmp_path / "state" / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FederationError, match="another federated run"):
            run(request_for("pump"))


@pytest.mark.parametrize(("has_key", "kind"), [(True, BundleError), (False, CertificateError)])
def test_the_command_writes_json_also_when_it_fails(tmp_path: Path, has_key: bool, kind: type[VedetteError]) -> None:
    if has_key:
        home.signing_key()
    config, result = tmp_path / "cloud.toml", tmp_path / "result.json"
    (tmp_path / "data").mkdir()
    migrate(tmp_path / "data")
    config.write_text(f'data_dir = "{tmp_path / "data"}"\n')
    outcome = CliRunner().invoke(
        cli.build().root,
        ["federated", "run", "--bundle-name", "pump", "--config", str(config), "--json", str(result)],
    )
    assert isinstance(outcome.exception, kind)
    values = json.loads(result.read_text())
    assert values["status"] == "failed"
    assert values["error"] == str(outcome.exception)


def test_status_without_a_server_says_so_and_writes_json(tmp_path: Path) -> None:
    result = tmp_path / "status.json"
    server = str(take_port(Address("127.0.0.1", 0)))
    outcome = CliRunner().invoke(
        cli.build().root,
        ["federated", "status", "--state-dir", str(tmp_path), "--server", server, "--json", str(result)],
    )
    assert isinstance(outcome.exception, ConnectionFailedError)
    assert json.loads(result.read_text()) == {"address": server, "answers": False, "nodes": [], "runs": []}
