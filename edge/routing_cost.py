"""Measurement of router and spool cost per sample: `python -m edge.routing_cost --config edge.toml --samples N`.

Samples of the first source are screened once, then routed repeatedly with uniform p-values, as normal data has. CPU
time covers user and kernel time of the process from p-values to the committed file: decisions, counts, messages and
transactions. Standard output is a JSON object: `samples`, `travelled`, `cpu_us` (total), `cpu_us_per_sample`,
`cpu_us_per_travelled`.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge.bundles.cache import BundleCache
from edge.counters import Counters
from edge.routing.budget import UploadBudget
from edge.routing.forwarding import Forwarder
from edge.routing.router import RateMeter, Router
from edge.screener import ScreenedBatch, Screener, load_screener
from edge.settings import AgentSettings
from edge.sources import open_source
from edge.spool import Spool
from edge.uplink.identity import load_bundle_key
from shared.errors import SettingsError, VedetteError
from shared.modalities import sample_type
from shared.samples import SampleBatch

KEPT_BATCHES = 8
POLL_S = 0.002

Screened = tuple[SampleBatch, ScreenedBatch]


def measure(settings: AgentSettings, samples: int) -> dict[str, float]:
    """Return the figures for at least `samples` samples, rounded up to a whole batch."""
    screener, screened = _screened(settings)
    random = np.random.default_rng(settings.router.seed)
    with tempfile.TemporaryDirectory(dir=settings.state_dir) as folder:
        counters = Counters()
        spool = Spool(Path(folder) / "spool.db", settings.spool, counters)
        budget = UploadBudget(settings.router)
        router = Router(settings.router, settings.sources[0].id, RateMeter(0.0), budget)
        forwarder = Forwarder(router, settings.router, budget, lambda _: None)
        passed, travelled, cpu_s = 0, 0, 0.0
        while passed < samples:
            batch, once = screened[0]
            screened = [*screened[1:], screened[0]]
            again = replace(once, p_values=random.random(len(once.kept)))
            started_s = time.process_time()
            forwarded = forwarder.forward(batch, again, screener)
            spool.append(forwarded.samples, forwarded.counts)
            cpu_s += time.process_time() - started_s
            passed, travelled = passed + len(once.kept), travelled + len(forwarded.samples)
        started_s = time.process_time()
        while spool.status().pending and not spool.status().error:
            time.sleep(POLL_S)
        cpu_s += time.process_time() - started_s
        spool.close()
    return {
        "samples": passed,
        "travelled": travelled,
        "cpu_us": cpu_s * 1e6,
        "cpu_us_per_sample": cpu_s / passed * 1e6,
        "cpu_us_per_travelled": cpu_s / max(travelled, 1) * 1e6,
    }


def _screened(settings: AgentSettings) -> tuple[Screener, list[Screened]]:
    source_settings = settings.sources[0]
    if source_settings.bundle is None:
        raise SettingsError("The first source names no bundle: set its path.")
    cache = BundleCache(settings.state_dir / "bundles", [load_bundle_key(settings.state_dir, settings.bundle_key)])
    bundle = cache.open(source_settings.bundle)
    usual = sample_type(bundle.manifest.modality).usual_batch_size(bundle.manifest.input)
    batch_size = source_settings.batch_size_for(usual)
    screener = load_screener(bundle, source_settings.artefact, batch_size, settings.state_dir / "engine_cache")
    stop = threading.Event()
    found: list[Screened] = []
    for batch in open_source(source_settings, screener.modality, screener.spec, stop, "").batches():
        if len(batch):
            found.append((batch, screener.screen(batch)))
        if len(found) == KEPT_BATCHES:
            stop.set()
            break
    if not found:
        raise SettingsError("The first source gave no sample that can be screened.")
    return screener, found


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--samples", type=int, required=True)
    options = parser.parse_args()
    try:
        json.dump(measure(AgentSettings.load(options.config), options.samples), sys.stdout)
    except VedetteError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
