"""Rollouts in stages over the real service, with stand-ins for agents."""

import asyncio
import json
import time
from dataclasses import dataclass

import grpc
import pytest
from typer.testing import CliRunner

from cloud.rollouts.phases import RolloutEvent, RolloutPhase
from cloud.rollouts.stages import Stage
from cloud.service.rollouts import Rollouts
from cloud.service.tokens import new_tokens
from cloud.settings import CloudSettings
from cloud.store import open_store
from cloud.store.registry import Registry, publish_to
from cloud.store.rollout_view import rollout_view
from cloud.store.rollouts import StagedRollout, newest_rollout
from edge.uplink.enrolment import enroll
from shared.cli import build
from shared.errors import BundleError, RolloutError, SettingsError
from shared.signing_keys import public_pem
from tests.cloud.service.agents import Agent
from tests.cloud.service.edge_device import started
from tests.cloud.service.harness import Running, enrol, running, settings_for
from tests.cloud.service.served import Served, write_settings

NAMES = [f"press-{number}" for number in range(5)]
TRIAL = Stage(name="trial", devices=("press-0",), least_s=0, least_samples=1000)
ALL = Stage(name="wave 100 %", percent=100, least_s=0, least_samples=1000)


@dataclass
class Fleet:
    """A service with its agents and the rollouts of one administrator."""

    cloud: Running
    agents: list[Agent]

    @property
    def rollouts(self) -> Rollouts:
        return Rollouts(self.cloud.service.store, self.cloud.service.registry, "ada")

    async def state(self) -> StagedRollout:
        async with self.cloud.service.store.reading() as connection:
            found = await newest_rollout(connection, "biopsy")
        assert found is not None
        return found

    async def beat_until(self, is_reached, timeout_s: float = 30) -> StagedRollout:
        """Let all agents send heartbeats until the rollout is in a state."""
        async with asyncio.timeout(timeout_s):
            while not is_reached(state := await self.state()):
                await asyncio.gather(*(agent.beat() for agent in self.agents))
                await asyncio.sleep(0.05)
        return state


@pytest.fixture
async def fleet(tmp_path, biopsies):
    settings = settings_for(tmp_path, heartbeat_s=60, rollouts={"check_every_s": 0.05})
    async with running(settings, biopsies.key) as cloud:
        entry = await cloud.service.registry.publish(biopsies.bundle)
        clients = [await cloud.device(name) for name in NAMES]
        yield Fleet(cloud, [Agent(client, entry.bundle_id) for client in clients])


async def publish(fleet: Fleet, biopsies, version: int = 2) -> str:
    return (await fleet.cloud.service.registry.publish(biopsies.version(version), make_current=False)).bundle_id


async def test_a_good_bundle_goes_through_all_stages(fleet, biopsies):
    first, second = fleet.agents[0].bundle_id, await publish(fleet, biopsies)
    await fleet.rollouts.start("biopsy", second, [TRIAL, ALL], "new season")
    await fleet.beat_until(lambda _: fleet.agents[0].bundle_id == second)
    assert [agent.bundle_id for agent in fleet.agents] == [second, *[first] * 4]
    assert (await fleet.cloud.service.registry.current("biopsy")).bundle_id == first
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await fleet.agents[1].fetch(second)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    state = await fleet.beat_until(lambda state: state.phase is RolloutPhase.COMPLETED)
    assert [agent.fetched for agent in fleet.agents] == [[second]] * 5
    assert (await fleet.cloud.service.registry.current("biopsy")).bundle_id == second
    async with fleet.cloud.service.store.reading() as connection:
        history = (await rollout_view(connection, "biopsy")).history
    assert [entry.event for entry in history] == ["start", "gates passed", "last gates passed"]
    assert (history[0].author, history[0].reason) == ("ada", "new season")
    assert "of the samples were forwarded" in history[1].reason
    assert all(gate.outcome == "passed" for gate in state.gates)
    assert b'vedette_rollouts_total{phase="completed"} 1.0' in fleet.cloud.service.metrics.page()


async def test_a_real_installer_follows_a_stage_and_the_way_back(cloud, biopsies, tmp_path):
    registry, states = cloud.service.registry, [tmp_path / name for name in NAMES[:2]]
    for state, name in zip(states, NAMES, strict=False):
        await asyncio.to_thread(enroll, state, await cloud.token(name))
    first, second = biopsies.bundle.manifest.bundle_id, biopsies.version(2).manifest.bundle_id
    await registry.publish(biopsies.version(2), make_current=False)
    rollouts = Rollouts(cloud.service.store, registry, "ada")
    async with started(states[0]) as inside, started(states[1]) as outside:
        await inside.until(lambda: inside.source.bundle_id == first)
        await outside.until(lambda: outside.source.bundle_id == first)
        await rollouts.start("biopsy", second, [TRIAL, ALL])
        await inside.until(lambda: inside.source.bundle_id == second)
        await rollouts.back("biopsy")
        await inside.until(lambda: inside.source.bundle_id == first)
        assert outside.source.bundle_id == first
        assert not outside.cache.has(second)


@pytest.mark.system
async def test_a_service_killed_in_a_stage_goes_on_after_its_next_start(tmp_path, biopsies):
    config = write_settings(tmp_path, biopsies.key, **{"rollouts.check_every_s": 0.1, "heartbeat_s": 60})

    async def beat_until(done) -> None:
        async with asyncio.timeout(60):
            while not done():
                await asyncio.gather(*(agent.beat() for agent in agents))
                await asyncio.sleep(0.1)

    async def rollout(act) -> dict:
        async with open_store(tmp_path / "data") as store:
            registry = Registry(store, tmp_path / "data", biopsies.key.public_key())
            await act(Rollouts(store, registry, "ada"))
            async with store.reading() as connection:
                return await rollout_view(connection, "biopsy")

    async with Served(config) as served:
        for bundle, is_current in ((biopsies.bundle, True), (biopsies.version(2), False)):
            await publish_to(served.data_dir, bundle, biopsies.key.public_key(), make_current=is_current)
        first, second = (each.manifest.bundle_id for each in (biopsies.bundle, biopsies.version(2)))
        tokens = await new_tokens(CloudSettings.load(config, {}), {name: f"of {name}" for name in NAMES[:2]}, 60)
        agents = [Agent(await enrol(text), first) for text in tokens.values()]
        await rollout(lambda rollouts: rollouts.start("biopsy", second, [TRIAL, ALL]))
        await beat_until(lambda: agents[0].bundle_id == second)
        served.process.kill()
        served.process.wait()
    async with Served(config) as served:
        for agent in agents:
            agent.connect(served.facts["address"])
        await beat_until(lambda: 'vedette_rollouts_total{phase="completed"} 1.0' in served.get("metrics"))
        assert [agent.fetched for agent in agents] == [[second]] * 2
        found = await rollout(lambda rollouts: rollouts.at_once("biopsy", second))
        assert [entry.event for entry in found.history] == ["start", "gates passed", "last gates passed"]
        for agent in agents:
            await agent.client.close()


async def test_a_bundle_that_floods_halts_at_the_trial_and_the_others_never_fetch_it(fleet, biopsies):
    first, second = fleet.agents[0].bundle_id, await publish(fleet, biopsies)
    fleet.agents[0].floods = {second}
    await fleet.rollouts.start("biopsy", second, [TRIAL, ALL])
    state = await fleet.beat_until(lambda state: state.phase is RolloutPhase.HALTED)
    await fleet.beat_until(lambda _: fleet.agents[0].bundle_id == first)
    assert state.stage == 0
    assert [agent.fetched for agent in fleet.agents] == [[second, first], [], [], [], []]
    async with fleet.cloud.service.store.reading() as connection:
        last = (await rollout_view(connection, "biopsy")).history[-1]
    assert (last.event, last.author) == ("gate failed", "service")
    assert "of the samples were forwarded" in last.reason
    changes = [each.bundle_changed.bundle_id for each in await fleet.agents[0].client.events(3)]
    assert changes == [first, second, first]


async def test_a_device_that_cannot_use_the_bundle_halts_it_also_while_paused(fleet, biopsies):
    second = await publish(fleet, biopsies)
    fleet.agents[0].broken = {second}
    await fleet.rollouts.start("biopsy", second, [TRIAL, ALL])
    await fleet.rollouts.act("biopsy", RolloutEvent.PAUSE)
    state = await fleet.beat_until(lambda state: state.phase is RolloutPhase.HALTED)
    assert "1 could not use it: press-0" in next(gate.text for gate in state.gates if gate.gate == "swaps")


async def test_a_paused_rollout_waits_and_a_person_can_take_it_back(fleet, biopsies):
    first, second = fleet.agents[0].bundle_id, await publish(fleet, biopsies)
    await fleet.rollouts.start("biopsy", second, [TRIAL, ALL])
    await fleet.rollouts.act("biopsy", RolloutEvent.PAUSE, "look at it first")
    await fleet.beat_until(lambda state: state.gates and all(gate.outcome == "passed" for gate in state.gates))
    await asyncio.sleep(0.2)
    assert (await fleet.state()).stage == 0
    await fleet.rollouts.back("biopsy", "not today")
    assert (await fleet.beat_until(lambda _: fleet.agents[0].bundle_id == first)).phase is RolloutPhase.TAKEN_BACK
    with pytest.raises(RolloutError, match="No rollout of 'biopsy' is under way"):
        await fleet.rollouts.act("biopsy", RolloutEvent.RESUME)


async def test_what_cannot_be_rolled_out_is_refused(fleet, biopsies):
    first, second, third = fleet.agents[0].bundle_id, await publish(fleet, biopsies), await publish(fleet, biopsies, 3)
    rollouts = fleet.rollouts
    with pytest.raises(SettingsError, match="No device 'press-9' is enrolled"):
        await rollouts.start("biopsy", second, [Stage(name="trial", devices=("press-9",)), ALL])
    with pytest.raises(BundleError, match="is the current bundle of 'biopsy' already"):
        await rollouts.start("biopsy", first, [ALL])
    await rollouts.start("biopsy", second, [TRIAL, ALL])
    for attempt in (
        rollouts.start("biopsy", third, [ALL]),
        rollouts.at_once("biopsy", third),
        fleet.cloud.service.registry.publish(biopsies.version(4)),
    ):
        with pytest.raises(RolloutError, match="is under way"):
            await attempt
    assert (await fleet.cloud.service.registry.current("biopsy")).bundle_id == first


async def test_the_command_starts_shows_and_ends_a_rollout(fleet, biopsies, tmp_path):
    first, second = fleet.agents[0].bundle_id, await publish(fleet, biopsies)
    (tmp_path / "key.pem").write_bytes(public_pem(biopsies.key.public_key()))
    config, result = tmp_path / "cloud.toml", tmp_path / "rollout.json"
    config.write_text(f'data_dir = "{fleet.cloud.settings.data_dir}"\nbundle_key = "{tmp_path}/key.pem"\n')

    async def call(*words: str):
        arguments = ["cloud", "rollout", *words, "--config", str(config), "--json", str(result)]
        return await asyncio.to_thread(CliRunner().invoke, build("cloud").root, arguments)

    options = ("--stages", "trial=press-0", "--waves", "50,100", "--author", "ada")
    limits = ("--max-failed", "0.2", "--max-alarmed", "3x+5%", "--min-devices", "3")
    started = await call("biopsy", "--to", second, *options, *limits)
    stored = json.loads(result.read_text())["rollout"]["limits"]
    assert (stored["max_failed"], stored["min_devices"]) == (0.2, 3)
    assert stored["max_alarmed"] == {"ratio": 3.0, "slack": 0.05}
    assert stored["max_missed"] == {"ratio": 2.0, "slack": 0.05}
    assert "trial: under way" in started.stdout
    assert f"* {first}" in started.stdout
    assert (await call("pause", "biopsy", "--reason", "lunch")).exit_code == 0
    assert json.loads(result.read_text())["rollout"]["phase"] == "paused"
    assert (await call("resume", "biopsy")).exit_code == 0
    shown = await call("status", "biopsy")
    assert "pause (trial) by" in shown.stdout
    assert "lunch" in shown.stdout
    assert (await call("biopsy", "--back")).exit_code == 0
    found = json.loads(result.read_text())
    assert [stage["state"] for stage in found["rollout"]["stages"]] == ["taken back", "not begun", "not begun"]
    assert time.time() - found["rollout"]["ended_at_s"] < 60
    assert (await call("biopsy", "--to", second)).exit_code == 0  # few devices: at once
    assert (await fleet.cloud.service.registry.current("biopsy")).bundle_id == second
    for words in (
        ("stop", "biopsy"),
        ("biopsy", "--now"),
        ("pause", "biopsy", "--back"),
        ("biopsy", "--min-devices", "3"),
    ):
        refused = await call(*words)
        assert isinstance(refused.exception, SettingsError), words
