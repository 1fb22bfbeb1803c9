"""Analysis benchmark: verdicts a second of the service's batcher against a bare loop over the same networks.

The bare loop runs encoder and analyzers of one bundle on prepared samples, at the batch size that is best for them. The
service's side begins with samples that wait in a store, and ends when the last verdict is stored: reading, decoding,
preprocessing, networks, fusion, explanations and commits. Both sides run in this process, in turns.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.bench.fitted import BenchBundle, fitted_bundles
from cloud.bench.machine import machine
from cloud.bench.setup import Setup
from cloud.bench.workloads import forwarded
from cloud.serving.analysis import Analysis
from cloud.serving.batcher import Batcher
from cloud.serving.cache import AnalysisCache
from cloud.serving.encoding import Samples
from cloud.serving.precision import Precision
from cloud.serving.scoring import score_blocks
from cloud.serving.switch_interval import shorten_switch_interval
from cloud.serving.worker import Worker
from cloud.store import Store, open_store
from cloud.store.ingest import Received, store_samples
from cloud.store.registry import Registry
from cloud.training.progress import StageProgress
from shared.errors import VedetteError
from shared.garbage import skip_loaded_objects
from shared.samples import Sample, new_sample_id
from shared.wire import encode_payload

REQUIRED = 0.95
DEVICES, FILLED_AT_ONCE = 4, 512
DRAIN_TIMEOUT_S = 120.0
BUDGET_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class AnalysisBenchOptions:
    """`rounds`: turns of each side. `share`: of the usual number of samples and training steps.

    `precision`: of the networks, on both sides.
    """

    rounds: int
    share: float
    command: str
    precision: Precision = "fp32"


class _Speed(NamedTuple):
    """Samples a second, and the processor time of all threads for a sample."""

    samples_a_second: float
    cpu_us_a_sample: float


def run_analysis_benchmark(options: AnalysisBenchOptions, progress: StageProgress) -> dict[str, Any]:
    """Return figures and requirements; raises VedetteError if verdicts are missing."""
    shorten_switch_interval()  # as the analysis of a service does
    figures, before = {}, machine()
    key = Ed25519PrivateKey.generate()
    for bundle in fitted_bundles(key, options.share, progress):
        with tempfile.TemporaryDirectory(prefix="vedette-bench-") as name:
            figures[bundle.name] = asyncio.run(_compare(Path(name), key, bundle, options, progress))
    rows = [
        {
            "samples": name,
            "what": "analysis, relative to a bare loop over the same networks",
            "required": REQUIRED,
            "measured": figure["ratio"],
            "met": figure["ratio"] >= REQUIRED,
        }
        for name, figure in figures.items()
    ]
    facts = {"rounds": options.rounds, "share": options.share}
    return {"command": options.command, "machine": before, **facts, "requirements": rows, "figures": figures}


async def _compare(
    folder: Path, key: Ed25519PrivateKey, bundle: BenchBundle, options: AnalysisBenchOptions, progress: StageProgress
) -> dict[str, Any]:
    analysis, rounds = Analysis.load(bundle.bundle, "cpu", precision=options.precision), options.rounds
    skip_loaded_objects()  # as the service does
    bare = {  # the second of two turns
        size: _bare_speed(analysis, bundle, size).samples_a_second for size in bundle.batch_sizes for _ in range(2)
    }
    best = max(bare, key=lambda size: bare[size])
    setup = Setup(folder, key, {})
    devices = [device.device_id for device in await setup.prepare([bundle.bundle], DEVICES)]
    bare_speeds, service_speeds = list[_Speed](), list[_Speed]()
    async with open_store(setup.settings.store) as store:
        service = _Service(store, setup, key, analysis)
        try:
            await service.speed(bundle, devices)  # warm-up
            for number in range(rounds):
                progress(f"{bundle.name}, bare loop", number / rounds)
                bare_speeds.append(_bare_speed(analysis, bundle, best))
                progress(f"{bundle.name}, service", (number + 0.5) / rounds)
                service_speeds.append(await service.speed(bundle, devices))
        finally:
            service.stop()
    ratios = [
        ours.samples_a_second / bare_loop.samples_a_second
        for ours, bare_loop in zip(service_speeds, bare_speeds, strict=True)
    ]
    return {
        "samples": len(bundle.judged),
        "bare_batch_size": best,
        "bare_samples_a_second_by_batch_size": {str(size): rate for size, rate in bare.items()},
        "service_batch_size": setup.settings.analysis.batch_size,
        "precision": "bf16" if analysis.precision.in_bfloat16 else "fp32",
        "p_factor": analysis.precision.p_factor,
        "bare_samples_a_second": statistics.median(speed.samples_a_second for speed in bare_speeds),
        "service_samples_a_second": statistics.median(speed.samples_a_second for speed in service_speeds),
        "bare_cpu_us_a_sample": statistics.median(speed.cpu_us_a_sample for speed in bare_speeds),
        "service_cpu_us_a_sample": statistics.median(speed.cpu_us_a_sample for speed in service_speeds),
        "ratio": statistics.median(ratios),
        "lowest_ratio": min(ratios),
        "highest_ratio": max(ratios),
    }


def _bare_speed(analysis: Analysis, bundle: BenchBundle, batch_size: int) -> _Speed:
    """Return the speed of encoder and analyzers on prepared samples."""
    prepared = [
        Samples.prepare(analysis.preprocessor, bundle.judged[start : start + batch_size])
        for start in range(0, len(bundle.judged), batch_size)
    ]
    in_bfloat16, speed_of = analysis.precision.in_bfloat16, _stopwatch(len(bundle.judged))
    for samples in prepared:
        for _ in score_blocks(analysis.encoder, analysis.analyzers, samples, analysis.device, in_bfloat16):
            pass
    return speed_of()


def _stopwatch(samples: int) -> Callable[[], _Speed]:
    """Return a function that returns the speed at which `samples` were judged since now."""
    started_s, started_cpu_s = time.perf_counter(), time.process_time()

    def speed() -> _Speed:
        wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
        return _Speed(samples / wall_s, 1e6 * cpu_s / samples)

    return speed


class _Service:
    """Batcher of a service on a store."""

    def __init__(self, store: Store, setup: Setup, key: Ed25519PrivateKey, analysis: Analysis) -> None:
        self._store = store
        self._registry = Registry(store, setup.settings.data_dir, key.public_key())
        self._workers = [Worker(name) for name in ("analysis", "decoding", "slow-analysis", "slow-decoding")]
        self._left = 0
        self._done = asyncio.Event()
        settings = setup.settings.analysis
        cache = AnalysisCache(
            self._registry.bundle, lambda _: analysis, self._workers[2], settings.cached_bundles, BUDGET_BYTES
        )
        self._failures: list[Exception] = []
        self._batcher = Batcher(
            store,
            cache,
            (self._workers[0], self._workers[1]),
            (self._workers[2], self._workers[3]),
            find_bundle=self._registry.judging_bundle_id,
            batch_size=settings.batch_size,
            false_alarm_rate=settings.false_alarm_rate,
            on_judged=lambda judged, *_: self._count(len(judged)),
            on_doubles=lambda _: None,
            on_failure=self._failures.append,
        )

    async def speed(self, bundle: BenchBundle, devices: Sequence[str]) -> _Speed:
        """Return the speed from waiting samples to the last stored verdict."""
        self._done.clear()
        self._left = len(bundle.judged)
        await self._fill(bundle, devices)
        speed_of = _stopwatch(len(bundle.judged))
        batching = asyncio.create_task(self._batcher.run())
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._done.wait()
            return speed_of()
        except TimeoutError:
            raise VedetteError(f"{self._left} samples have no verdict: {self._failures[:1]}.") from None
        finally:
            batching.cancel()
            await asyncio.wait([batching])

    def stop(self) -> None:
        """End the threads."""
        for worker in self._workers:
            worker.stop(1.0)

    def _count(self, judged: int) -> None:
        self._left -= judged
        if self._left <= 0:
            self._done.set()

    async def _fill(self, bundle: BenchBundle, devices: Sequence[str]) -> None:
        """Store the samples as devices send them."""
        modality, bundle_id = bundle.bundle.manifest.modality, bundle.bundle.manifest.bundle_id
        screening = forwarded(bundle_id)
        received = []
        for place, values in enumerate(bundle.judged):
            encoded = bundle.encoded[place] if bundle.encoded else None
            sample = Sample(
                new_sample_id(), "line-1", modality, time.time(), f"sample {place}", np.empty(0, np.float32)
            )
            received.append(Received(sample, screening, encode_payload(values, modality, encoded)))
        for turn, start in enumerate(range(0, len(received), FILLED_AT_ONCE)):
            part = received[start : start + FILLED_AT_ONCE]
            await store_samples(self._store, devices[turn % len(devices)], part, time.time())
