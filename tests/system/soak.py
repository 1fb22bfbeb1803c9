"""A soak: the real agent with many sources for as long as asked, while the link, the service and the bundles change.

    python -m tests.system.soak --minutes 30 --json soak.json --picture soak.png

It fails unless every routed sample arrives exactly once, and memory, file handles and threads stay flat. `make soak`.
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.images import encode_png
from shared.signing_keys import public_pem
from tests.edge.broker import MOSQUITTO, Broker, Publisher
from tests.edge.bundles import image_bundle, normal_images, normal_rows, tabular_bundle
from tests.edge.certificates import Authority, write_identity
from tests.edge.cloud_double import CloudDouble, running_cloud
from tests.edge.device import Device, write_csv
from tests.edge.proxy import Proxy

MEASURE_EVERY_S, REPORT_EVERY_S = 1.0, 10.0
DEADLINE_S = 2.0
WARM_UP = 0.25  # share of the duration: engines are loaded, caches filled, one bundle swapped
# Faults of link and service, as shares of the duration: the link is cut for ten minutes of half an hour.
PHASES = (
    (0.300, 0.634, "link cut"),
    (0.680, 0.720, "errors"),
    (0.760, 0.800, "answers late"),
    (0.840, 0.880, "half answers"),
)
BUNDLES = (0.10, 0.27, 0.65, 0.74, 0.90)  # times at which a new bundle is published
# Largest growth until the end, by a linear fit since the warm-up.
MAX_GROWTH_MIB, MAX_NEW_HANDLES, MAX_NEW_THREADS = 12.0, 8.0, 4.0


@dataclass
class Moment:
    """Resources of the process at one moment; `at_s` in seconds since the start."""

    at_s: float
    resident_mib: float
    handles: int
    threads: int
    spooled: int
    phase: str


@dataclass
class Result:
    """Result of a soak; growth is a linear fit over the time since the warm-up."""

    minutes: float
    samples: int = 0
    resent: int = 0
    most_spooled: int = 0
    bundle_swaps: int = 0
    resident_mib: float = 0.0
    growth_mib: float = 0.0
    growth_mib_per_hour: float = 0.0
    more_handles: float = 0.0
    more_threads: float = 0.0
    faults: list[str] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)


class Soak:
    """One run, in `folder`."""

    def __init__(self, folder: Path, minutes: float, report: Callable[[str], None]) -> None:
        self._folder, self._length_s, self._report = folder, minutes * 60.0, report
        self._result = Result(minutes)
        self._key, self._authority = Ed25519PrivateKey.generate(), Authority()
        self._done = threading.Event()

    def run(self) -> Result:
        """Take the time, then let all arrive, and judge."""
        with ExitStack() as stack:
            cloud = stack.enter_context(running_cloud(self._authority, bundle_key=self._key.public_key()))
            proxy = Proxy(cloud.port)
            stack.callback(proxy.close)
            broker = Broker(self._folder) if MOSQUITTO is not None else None
            if broker is not None:
                broker.start()
                stack.callback(broker.stop)
            device = self._device(proxy.address, broker)
            stack.callback(device.close)
            writers = [threading.Thread(target=self._write_rows, daemon=True)]
            if broker is not None:
                writers.append(threading.Thread(target=self._publish, args=(broker.port,), daemon=True))
            for writer in writers:
                writer.start()
            device.start_afresh()
            try:
                self._soak(device, cloud, proxy)
            finally:
                self._done.set()
                for writer in writers:
                    writer.join(10)
            self._drain(device, cloud)
        self._judge()
        return self._result

    def _device(self, address: str, broker: Broker | None) -> Device:
        folder = self._folder
        tabular_bundle(self._key).save(folder / "plant.bundle")
        image_bundle(self._key).save(folder / "door.bundle")
        (folder / "pictures").mkdir()
        for number, picture in enumerate(normal_images(50)):
            (folder / "pictures" / f"{number}.png").write_bytes(encode_png(picture))
        (folder / "key.pem").write_bytes(public_pem(self._key.public_key()))
        plant = {"bundle": folder / "plant.bundle", "bundle_name": "plant"}
        rows = write_csv(folder / "rows.csv", normal_rows(2000, seed=5))
        sources: list[dict[str, Any]] = [
            {"id": "rows", "kind": "replay", "path": rows, "loop": True, "rate_per_s": 20, "batch_size": 8, **plant},
            {"id": "tail", "kind": "tail", "path": folder / "growing.csv", **plant},
            {"id": "door", "kind": "images", "path": folder / "pictures", "loop": True, "rate_per_s": 2}
            | {"bundle": folder / "door.bundle", "artefact": "int8_onnxruntime", "batch_size": 2},
        ]
        if broker is not None:
            url = f"mqtt://127.0.0.1:{broker.port}"
            sources.append({"id": "broker", "kind": "mqtt", "url": url, "topic": "plant", "client_id": "soak", **plant})
        settings: dict[str, Any] = {
            "bundle_key": folder / "key.pem",
            "router": {"mode": "cloud_only"},
            "uplink": {"deadline_s": DEADLINE_S, "heartbeat_s": 1, "backoff_max_s": min(15.0, self._length_s / 60)},
            "sources": sources,
        }
        device = Device(folder / "device", settings)
        write_identity(device.state, self._authority, address, self._key.public_key())
        return device

    def _write_rows(self) -> None:
        """Rows added to a file, which is rotated now and then."""
        path, rows = self._folder / "growing.csv", itertools.cycle(normal_rows(500, seed=3).tolist())
        for number in itertools.count():
            with path.open("w", buffering=1) as file:
                file.write("heat,load,flow\n")
                for row in itertools.islice(rows, 300):
                    if self._done.wait(0.1):
                        return
                    file.write(",".join(map(str, row)) + "\n")
            path.rename(path.with_name(f"{path.name}.{number % 3 + 1}"))

    def _publish(self, port: int) -> None:
        publisher, rows = Publisher(port), itertools.cycle(normal_rows(500, seed=4).tolist())
        while not self._done.wait(0.2):
            publisher.publish("plant", json.dumps(dict(zip(("heat", "load", "flow"), next(rows), strict=True))))
        publisher.close()

    def _soak(self, device: Device, cloud: CloudDouble, proxy: Proxy) -> None:
        device.until(lambda: device.counters().get("samples_acknowledged", 0) > 0, 60)
        started_s = time.monotonic()
        published, reported_s, before = 0, 0.0, ""
        while (at_s := time.monotonic() - started_s) < self._length_s:
            share = at_s / self._length_s
            phase = next((name for start, end, name in PHASES if start <= share < end), "well")
            if phase != before:
                _begin(phase, before, cloud, proxy)
                before = phase
            if published < len(BUNDLES) and share >= BUNDLES[published]:
                published += 1
                cloud.publish(tabular_bundle(self._key, version=published + 1))
            moment = _moment(device, at_s, phase)
            self._result.moments.append(moment)
            if at_s >= reported_s:
                reported_s += REPORT_EVERY_S
                self._report(_line(moment, device, cloud))
            time.sleep(MEASURE_EVERY_S)
        _begin("well", before, cloud, proxy)

    def _drain(self, device: Device, cloud: CloudDouble) -> None:
        """Wait until all samples routed so far have arrived, stop the agent, and end with a second run."""
        routed = _routed(device)
        device.until(lambda: device.counters()["samples_acknowledged"] >= routed, 120)
        self._result.bundle_swaps = device.counters()["bundle_swaps"]
        if code := device.terminate(15):
            self._result.faults.append(f"the agent ended with {code}")
        device.settings["sources"] = [device.settings["sources"][0] | {"loop": False, "rate_per_s": 0}]
        device.settings["drain_timeout_s"] = 60
        if code := device.start("--until-done").wait(180):
            self._result.faults.append(f"the spool could not be drained: {code}")
        counts, result = device.counters(), self._result
        result.samples, result.resent = len(cloud.samples), cloud.duplicates
        result.most_spooled = max(moment.spooled for moment in result.moments)
        expected = {"samples_spooled": _routed(device), "samples_acknowledged": result.samples}
        expected |= {"samples_screened": _routed(device), "verdicts": result.samples, "samples_dropped": 0}
        expected |= {"samples_refused": 0, "samples_rejected": 0, "bundle_rollbacks": 0, "bundles_refused": 0}
        wrong = {name: (counts[name], count) for name, count in expected.items() if counts[name] != count}
        result.faults += [f"{name} is {is_now}, not {shall_be}" for name, (is_now, shall_be) in wrong.items()]
        if _routed(device) != result.samples:
            result.faults.append(f"{_routed(device)} samples were routed, and {result.samples} arrived")

    def _judge(self) -> None:
        result = self._result
        measured = [moment for moment in result.moments if moment.at_s >= WARM_UP * self._length_s]
        at_s = np.array([moment.at_s for moment in measured])
        hours = float(at_s[-1] - at_s[0]) / 3600.0

        def growth(name: str) -> float:
            return float(np.polyfit(at_s, [getattr(moment, name) for moment in measured], 1)[0]) * 3600.0 * hours

        result.growth_mib, result.growth_mib_per_hour = growth("resident_mib"), growth("resident_mib") / hours
        result.more_handles, result.more_threads = growth("handles"), growth("threads")
        result.resident_mib = float(np.median([moment.resident_mib for moment in measured]))
        bounds = (("growth_mib", MAX_GROWTH_MIB), ("more_handles", MAX_NEW_HANDLES))
        for name, most in (*bounds, ("more_threads", MAX_NEW_THREADS)):
            if (found := getattr(result, name)) > most:
                result.faults.append(f"{name} is {found:.1f}, more than {most:.1f}")
        if result.bundle_swaps < len(BUNDLES):
            result.faults.append(f"{result.bundle_swaps} bundles were swapped, of {len(BUNDLES)} for several sources")


def _begin(phase: str, before: str, cloud: CloudDouble, proxy: Proxy) -> None:
    """End what was, and begin what shall be."""
    if before == "link cut":
        proxy.mend()
    elif phase == "link cut":
        proxy.cut()
    turns = itertools.count()

    async def late(samples: list[Any]) -> list[Any]:
        answers = [await cloud.accept(sample) for sample in samples]
        await asyncio.sleep(1.5 * DEADLINE_S if next(turns) % 2 else 0.0)
        return answers

    async def half(samples: list[Any]) -> list[Any]:
        return [await cloud.accept(sample) for sample in samples[::2]]

    faults: dict[str, Callable[[list[Any]], Any]] = {
        "errors": lambda _: grpc.StatusCode.UNAVAILABLE if next(turns) % 3 else None,
        "answers late": late,
        "half answers": half,
    }
    cloud.submit_fault = faults.get(phase)


def _moment(device: Device, at_s: float, phase: str) -> Moment:
    assert device.process is not None
    process = Path(f"/proc/{device.process.pid}")
    facts = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    handles = len(list((process / "fd").iterdir()))
    spooled = device.status().get("spool", {}).get("samples", 0)
    return Moment(at_s, int(facts["VmRSS"].split()[0]) / 1024, handles, int(facts["Threads"]), spooled, phase)


def _routed(device: Device) -> int:
    counts = device.counters()
    return counts["samples_forwarded"] + counts["samples_audited"]


def _line(moment: Moment, device: Device, cloud: CloudDouble) -> str:
    return (
        f"{moment.at_s / 60:5.1f} min  {moment.phase:12}  {moment.resident_mib:6.1f} MiB  {moment.handles:3} handles  "
        f"{moment.threads:3} threads  {_routed(device):7} routed  {moment.spooled:6} in the spool  "
        f"{len(cloud.samples):7} in the cloud"
    )


def table(result: Result) -> Iterator[str]:
    """The result for people."""
    names = ("samples", "resent", "most_spooled", "bundle_swaps")
    yield from (f"{name.replace('_', ' '):24}{getattr(result, name):10}" for name in names)
    names = ("resident_mib", "growth_mib", "growth_mib_per_hour", "more_handles", "more_threads")
    yield from (f"{name.replace('_', ' '):24}{getattr(result, name):10.1f}" for name in names)
    yield from (f"FAULT: {fault}" for fault in result.faults)


def draw(result: Result, path: Path) -> None:
    """Memory, handles, threads and the spool over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = (
        ("resident_mib", "memory, MiB"),
        ("handles", "handles"),
        ("threads", "threads"),
        ("spooled", "in the spool"),
    )
    figure, axes = pyplot.subplots(len(rows), 1, sharex=True, figsize=(9, 8))
    minutes = [moment.at_s / 60 for moment in result.moments]
    for axis, (name, title) in zip(axes, rows, strict=True):
        axis.plot(minutes, [getattr(moment, name) for moment in result.moments], linewidth=1)
        axis.set_ylabel(title)
        axis.set_ylim(bottom=0)
        for start, end, phase in PHASES:
            axis.axvspan(start * result.minutes, end * result.minutes, alpha=0.15, label=phase)
        for share in BUNDLES:
            axis.axvline(share * result.minutes, linewidth=0.5, color="black")
    axes[-1].set_xlabel("minutes; shaded: link cut, errors, late answers, half answers; lines: new bundles")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = Soak(Path(folder), options.minutes, lambda line: print(line, flush=True)).run()
    print("\n".join(table(result)))
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(result), indent=1))
    if options.picture is not None:
        draw(result, options.picture)
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
