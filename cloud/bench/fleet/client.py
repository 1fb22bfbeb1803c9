"""Client process of the fleet benchmark: `python -m cloud.bench.fleet.client PLAN.json`."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Protocol

from cloud.bench.fleet.honest import HonestFleet
from cloud.bench.fleet.hostile import HostileFleet
from cloud.bench.fleet.plan import CONNECTED, ClientKind, ClientPlan, ClientResult

POLL_S = 0.02
NICENESS = 10  # of hostile devices, which elsewhere would have a machine of their own


class SimulatedDevices(Protocol):
    """Devices of one process."""

    async def connect(self) -> None:
        """Connect all devices."""
        ...

    async def run(self, start_s: float) -> None:
        """Run the devices from `start_s` of time.perf_counter() on."""
        ...

    async def close(self) -> ClientResult:
        """End all calls; return the figures."""
        ...


async def main(plan: ClientPlan) -> None:
    """Connect, wait for the start, run, and write the result."""
    devices: SimulatedDevices = HonestFleet(plan) if plan.kind is ClientKind.HONEST else HostileFleet(plan)
    await devices.connect()
    print(CONNECTED, flush=True)
    while not plan.start_file.exists():
        await asyncio.sleep(POLL_S)
    cpu_before_s = time.process_time()
    await devices.run(time.perf_counter())
    cpu_s = time.process_time() - cpu_before_s
    result = await devices.close()
    result.cpu_s = cpu_s
    plan.result.write_text(result.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    wanted = ClientPlan.model_validate_json(Path(sys.argv[1]).read_bytes())
    if wanted.kind is ClientKind.HOSTILE:
        os.nice(NICENESS)
    asyncio.run(main(wanted))
