"""Process that judges one comparison, for the service that started it; its options come as JSON on standard input.

It has the lowest priority of the system, one thread, and ends with its service. The kernel ends it first when memory is
used up: analyses of two bundles take as much as those of live samples.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel

from cloud.analysis_settings import AnalysisSettings
from cloud.comparison.run import LIVE_S, run_comparison
from cloud.serving.ports import Judge
from cloud.settings import StoreLocation
from cloud.store import open_store
from cloud.store.audit import SERVICE_ACTOR
from cloud.store.comparisons import one_comparison
from cloud.store.registry import Registry
from shared.bundle import Bundle
from shared.logs import configure
from shared.parent_process import end_before_others, end_with_parent

NICENESS = 19
_LIKELINESS = 1000  # of 1000, to be ended when memory is used up


class ComparisonStart(BaseModel):
    """Options of the process; `trusted_key` is an Ed25519 public key as hexadecimal digits.

    `live_first`: live samples are judged before those of the comparison, by the service.
    """

    parent_pid: int
    number: int
    runner: str
    settings: AnalysisSettings
    location: StoreLocation
    trusted_key: str
    live_first: bool


async def judge(start: ComparisonStart) -> None:
    """Judge the comparison, unless it was cancelled or another process has it."""
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(start.trusted_key))
    settings = start.settings
    async with open_store(start.location, actor=SERVICE_ACTOR) as store:
        async with store.reading() as connection:
            comparison = await one_comparison(connection, start.number)
        if comparison is None or comparison.runner != start.runner:
            return
        registry = Registry(store, start.location, key)
        live_s = LIVE_S if start.live_first else None
        await run_comparison(store, registry, comparison, _loader(settings), settings.false_alarm_rate, live_s=live_s)


def _loader(settings: AnalysisSettings) -> Callable[[Bundle], Judge]:
    def load(bundle: Bundle) -> Judge:
        import torch  # takes seconds: a cancelled comparison does not wait for it

        from cloud.serving.analysis import load_analysis

        torch.set_num_threads(1)
        return load_analysis(bundle, settings.device, settings.false_alarm_rate, settings.precision)

    return load


def main() -> None:
    """Run the process."""
    start = ComparisonStart.model_validate_json(sys.stdin.read())
    end_with_parent(start.parent_pid)
    end_before_others(_LIKELINESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the service too, which ends this process
    os.nice(NICENESS)
    configure(libraries=True)
    asyncio.run(judge(start))
    sys.stdout.flush()
    os._exit(0)  # unloading PyTorch takes long


if __name__ == "__main__":
    main()
