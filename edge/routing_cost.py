"""CPU cost of the router and the spool: `python -m edge.routing_cost --config edge.toml --samples N`.

Samples of the first source are screened once and then routed repeatedly with uniform p-values, like those of normal
data. The CPU time is user and system time of the process from p-values to the committed file: decisions, counts,
messages, transactions. The output is a JSON object:

* `samples`, `forwarded`: numbers of routed samples and of samples in the spool
* `cpu_us`: total CPU time in microseconds
* `cpu_us_per_sample`, `cpu_us_per_forwarded`: CPU time divided by these numbers
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
from edge.uplink.trust import BundleKeys
from shared.errors import SettingsError, VedetteError
from shared.modalities import sample_type
from shared.samples import SampleBatch

SCREENED_BATCHES = 8
POLL_S = 0.002

Screened = tuple[SampleBatch, ScreenedBatch]


def measure(settings: AgentSettings, samples: int) -> dict[str, float]:
    """Route at least `samples` samples in whole batches and return the figures of the JSON object."""
    screener, screened = _screened(settings)
    random = np.random.default_rng(settings.router.seed)
    with tempfile.TemporaryDirectory(dir=settings.state_dir) as folder:
        counters = Counters()
        spool = Spool(Path(folder) / "spool.db", settings.spool, counters)
        budget = UploadBudget(settings.router)
        router = Router(settings.router, settings.sources[0].id, RateMeter(0.0), budget)
        forwarder = Forwarder(router, settings.router, budget, lambda _: None)
        passed, forwarded_count, cpu_s = 0, 0, 0.0
        while passed < samples:
            batch, result = screened[0]
            screened = [*screened[1:], screened[0]]
            redrawn = replace(result, p_values=random.random(len(result.kept)))
            started_s = time.process_time()
            forwarded = forwarder.forward(batch, redrawn, screener)
            spool.append(forwarded.samples, forwarded.counts)
            cpu_s += time.process_time() - started_s
            passed, forwarded_count = passed + len(result.kept), forwarded_count + len(forwarded.samples)
        started_s = time.process_time()
        while spool.status().pending and not spool.status().error:
            time.sleep(POLL_S)
        cpu_s += time.process_time() - started_s
        spool.close()
    return {
        "samples": passed,
        "forwarded": forwarded_count,
        "cpu_us": cpu_s * 1e6,
        "cpu_us_per_sample": cpu_s / passed * 1e6,
        "cpu_us_per_forwarded": cpu_s / max(forwarded_count, 1) * 1e6,
    }


def _screened(settings: AgentSettings) -> tuple[Screener, list[Screened]]:
    """Return the screener of the first source and its first batches, at most SCREENED_BATCHES.

    Raises:
        SettingsError: The source names no bundle or has no valid sample.
    """
    source_settings = settings.sources[0]
    if source_settings.bundle is None:
        raise SettingsError("The first source names no bundle: set `bundle` to a path.")
    cache = BundleCache(settings.state_dir / "bundles", BundleKeys(settings.state_dir, settings.bundle_key).keys)
    bundle = cache.open(source_settings.bundle)
    usual = sample_type(bundle.manifest.modality).usual_batch_size(bundle.manifest.input)
    batch_size = source_settings.batch_size_for(usual)
    screener = load_screener(bundle, source_settings.artefact, batch_size, settings.state_dir / "engine_cache")
    stop = threading.Event()
    found: list[Screened] = []
    for batch in open_source(source_settings, screener.modality, screener.spec, stop, "").batches():
        if len(batch):
            found.append((batch, screener.screen(batch)))
        if len(found) == SCREENED_BATCHES:
            stop.set()
            break
    if not found:
        raise SettingsError("The first source has no valid sample to screen.")
    return screener, found


def main() -> None:
    """Parse the command line, measure, and print the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, required=True, help="settings of the agent (TOML file)")
    parser.add_argument("--samples", type=int, required=True, help="minimum number of samples to route")
    options = parser.parse_args()
    try:
        json.dump(measure(AgentSettings.load(options.config), options.samples), sys.stdout)
    except VedetteError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
