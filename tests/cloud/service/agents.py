"""Stand-ins for agents, which swap bundles and count samples."""

from dataclasses import dataclass, field

from shared.status import Heartbeat, HeartbeatCounters, RunningBundle
from tests.cloud.service.harness import DeviceClient
from vedette.v1 import fleet_pb2


@dataclass
class Agent:
    """Stand-in for an agent: it fetches the bundle it should run, and counts 500 samples a heartbeat.

    A bundle in `floods` forwards every sample; one in `broken` cannot be used.
    """

    client: DeviceClient
    bundle_id: str
    floods: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    fetched: list[str] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    screened: int = 20_000
    forwarded: int = 1000

    def __post_init__(self) -> None:
        self.connect(self.client.address)

    def connect(self, address: str) -> None:
        """Connect to the service, also after it has started again on another port."""
        self.client.address = address
        self._fleet = self.client.fleet

    async def beat(self) -> None:
        self.screened += 500
        self.forwarded += 500 if self.bundle_id in self.floods else 25
        beat = Heartbeat(
            counters=HeartbeatCounters(samples_screened=self.screened, samples_forwarded=self.forwarded),
            running=(RunningBundle(source_id="lab", bundle_name="biopsy", bundle_id=self.bundle_id, state="running"),),
            warnings=self.warnings,
        )
        (desired,) = (await self._fleet.Heartbeat(beat.to_message())).desired
        if desired.bundle_id != self.bundle_id and desired.bundle_id not in self.broken:
            await self.fetch(desired.bundle_id)
            self.bundle_id = desired.bundle_id
        elif desired.bundle_id in self.broken:
            self.warnings = ("bundles: 1 could not be used",)

    async def fetch(self, bundle_id: str) -> None:
        async for _ in self._fleet.FetchBundle(fleet_pb2.FetchBundleRequest(bundle_id=bundle_id)):
            pass
        self.fetched.append(bundle_id)
