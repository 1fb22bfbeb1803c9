"""The parts of an agent that follow the service: uplink, installer and trusted keys."""

import asyncio
import contextlib

from edge.bundles.cache import BundleCache
from edge.bundles.updater import Updater
from edge.counters import Counters
from edge.settings import AgentSettings
from edge.spool import Spool
from edge.uplink.group_settings import FollowedSettings
from edge.uplink.meter import LinkMeter
from edge.uplink.renewal import CertificateRenewal
from edge.uplink.trust import BundleKeys
from edge.uplink.uplink import Uplink
from shared.signing_keys import key_id
from shared.status import RunningBundle


class Source:
    """A source that runs each bundle of its name that the installer brings."""

    def __init__(self) -> None:
        self.bundle_id = ""

    def running(self) -> RunningBundle:
        return RunningBundle(source_id="lab", bundle_name="biopsy", bundle_id=self.bundle_id)

    def follows(self) -> bool:
        return True

    def adopt(self, bundle, on_trial) -> bool:
        self.bundle_id = bundle.manifest.bundle_id
        return True


class EdgeDevice:
    """Uplink, installer and trusted keys of an agent, without sources that screen."""

    def __init__(self, state, **changes) -> None:
        agent = AgentSettings.model_validate({"state_dir": state, **changes})
        settings = agent.uplink.model_copy(update={"heartbeat_s": 0.1})
        self.group = FollowedSettings(state, agent.router, follows=agent.group_settings)
        self.keys, self.source = BundleKeys(state), Source()
        self.cache = BundleCache(state / "bundles", self.keys.keys)
        counters = Counters(state / "counters.json")
        self.spool = Spool(state / "spool.db", agent.spool, counters)
        parts = (self.cache, [self.source], self.spool, counters, self.problems, LinkMeter(), self.keys, self.group)
        self.updater = Updater("1", settings, *parts)
        self.renewal = CertificateRenewal(state, settings)
        self.uplink = Uplink(state, settings, [self.updater, self.renewal])
        self.uplink.start()

    def problems(self) -> list[str]:
        return [self.keys.problem] if self.keys.problem else []

    async def until(self, condition) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.uplink.call_soon(self.updater.nudge)
                await asyncio.sleep(0.05)

    def stop(self) -> None:
        self.uplink.stop()
        self.spool.close()

    @property
    def key_ids(self) -> list[str]:
        return [key_id(key) for key in self.keys.keys]


@contextlib.asynccontextmanager
async def started(state, **changes):
    device = await asyncio.to_thread(EdgeDevice, state, **changes)
    try:
        yield device
    finally:
        await asyncio.to_thread(device.stop)
