"""Replica benchmark: samples a second of the port `Judge` in this process, with one replica and with two.

The replicas are those of two local Ray clusters. All sides judge the same batches of one bundle, in turns.
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.analysis_settings import AnalysisSettings, RaySettings
from cloud.bench.fitted import BenchBundle, fitted_bundles
from cloud.bench.machine import machine
from cloud.serving.analysis import load_analysis
from cloud.serving.bounded_judge import BoundedJudge
from cloud.serving.ports import Judge
from cloud.serving.replicas.replica_set import ReplicaSet
from cloud.settings import StoreLocation
from cloud.store.bundle_files import BUNDLES_FOLDER, archive_name
from cloud.training.progress import StageProgress
from shared.errors import VedetteError
from shared.samples import Values

REPLICAS = (1, 2)
START_TIMEOUT_S = 180.0
SINGLE_CALLS = 50  # of one sample, for the overhead
FALSE_ALARM_RATE = 0.01


@dataclass(frozen=True, slots=True)
class ReplicaBenchOptions:
    """`rounds`: turns of each side. `share`: of the usual number of samples and training steps."""

    rounds: int
    share: float
    command: str


def run_replica_benchmark(options: ReplicaBenchOptions, progress: StageProgress) -> dict[str, Any]:
    """Return the figures; raises VedetteError if the replicas do not start."""
    before, key = machine(), Ed25519PrivateKey.generate()
    bundles = list(fitted_bundles(key, options.share, progress))
    with tempfile.TemporaryDirectory(prefix="vedette-bench-") as name:
        for each in bundles:
            each.bundle.save(Path(name, BUNDLES_FOLDER, archive_name(each.bundle.manifest.bundle_id)))
        figures = asyncio.run(_measure(Path(name), key, bundles, options.rounds, progress))
    facts = {"rounds": options.rounds, "share": options.share, "batch_size": AnalysisSettings().batch_size}
    return {"command": options.command, "machine": before, **facts, "requirements": [], "figures": figures}


async def _measure(
    data_dir: Path, key: Ed25519PrivateKey, bundles: Sequence[BenchBundle], rounds: int, progress: StageProgress
) -> dict[str, Any]:
    figures = {}
    async with contextlib.AsyncExitStack() as stack:
        progress("starting the replicas", 0.0)
        sets = {count: await stack.enter_async_context(_running(data_dir, count)) for count in REPLICAS}
        for each in bundles:
            sides: dict[str, tuple[Judge, int]] = {
                "in_process": (BoundedJudge(load_analysis(each.bundle, "cpu", FALSE_ALARM_RATE)), 1)
            }
            for count, replicas in sets.items():
                judge = await asyncio.to_thread(replicas.judge_of, each.bundle, [key.public_key()])
                sides[f"replicas_{count}"] = judge, count
            figures[each.name] = await asyncio.to_thread(_compare, each, sides, rounds, progress)
    return figures


@contextlib.asynccontextmanager
async def _running(data_dir: Path, count: int) -> AsyncIterator[ReplicaSet]:
    """Run a local cluster with that many replicas."""

    async def nothing() -> None: ...

    ray = RaySettings(address="local", min_replicas=count, max_replicas=count)
    replicas = ReplicaSet(AnalysisSettings(device="cpu", ray=ray), StoreLocation(data_dir), nothing)
    task = asyncio.create_task(replicas.run())
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while replicas.problem or replicas.running < count:
                await asyncio.sleep(0.1)
        yield replicas
    except TimeoutError:
        raise VedetteError(f"The replicas did not start within {START_TIMEOUT_S:.0f} s: {replicas.problem}.") from None
    finally:
        task.cancel()
        await asyncio.to_thread(replicas.stop)


def _compare(
    bundle: BenchBundle, sides: dict[str, tuple[Judge, int]], rounds: int, progress: StageProgress
) -> dict[str, Any]:
    """Return samples a second and milliseconds a call with one sample, by side: medians over the rounds."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    singles: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-1, rounds):  # the first is the warm-up
        for name, (judge, replicas) in sides.items():
            progress(f"{bundle.name}, {name}", max(number, 0) / rounds)
            rate = _rate(judge, bundle.judged, AnalysisSettings().batch_size * replicas)
            single = statistics.median(_seconds(judge, bundle.judged[:1]) for _ in range(SINGLE_CALLS))
            if number >= 0:
                rates[name].append(rate)
                singles[name].append(1000 * single)
    return {
        "samples": len(bundle.judged),
        "samples_a_second": {name: statistics.median(values) for name, values in rates.items()},
        "single_call_ms": {name: statistics.median(values) for name, values in singles.items()},
    }


def _rate(judge: Judge, values: Sequence[Values], batch_size: int) -> float:
    return len(values) / sum(
        _seconds(judge, values[start : start + batch_size]) for start in range(0, len(values), batch_size)
    )


def _seconds(judge: Judge, values: Sequence[Values]) -> float:
    started_s = time.perf_counter()
    judge.judge(values, [None] * len(values))
    return time.perf_counter() - started_s
