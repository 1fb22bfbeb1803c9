"""Runs of the fleet benchmark: a service, client processes with simulated devices, and what they measured."""

import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.bench.fleet import bundles
from cloud.bench.fleet.hostile import ATTACKS
from cloud.bench.fleet.plan import CONNECTED, ClientKind, ClientPlan, ClientResult, PlannedDevice
from cloud.bench.fleet.requirements import requirements
from cloud.bench.machine import cpu_seconds, machine, resident_mib
from cloud.bench.setup import Peer, Setup, SimulatedDevice
from cloud.service.data_dir import SERVICE_FILE
from cloud.training.progress import StageProgress
from shared.bundle import Bundle
from shared.errors import SettingsError, VedetteError
from shared.supervision import SupervisedProcess

SAMPLE_S = 1.0
CONNECT_S, CLIENT_END_S = 300.0, 60.0
SETTLED_SHARE, SETTLED_S = 0.1, 30.0  # of the run: memory counts as that of the start once caches have filled
VERSIONS = 8  # of the bundle that hostile devices alternate


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """Options of a run.

    `image_side`: height and width of the images of hostile devices in pixels. `attacks`: names of ATTACKS; empty: all.
    """

    devices: int
    rate: float
    seconds: float
    hostile: float
    clients: int
    drain_s: float
    image_side: int
    command: str
    attacks: tuple[str, ...] = ()


@dataclass(slots=True)
class _Use:
    """Use of the machine by the service in a run."""

    resident_mib: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    elapsed_s: float = 0.0


def run_fleet_benchmark(options: FleetOptions, progress: StageProgress) -> dict[str, Any]:
    """Return figures of each phase and the requirements.

    Raises SettingsError for an attack that does not exist, VedetteError if a process ends early.
    """
    if unknown := [name for name in options.attacks if name not in ATTACKS]:
        raise SettingsError(f"--attacks: there is no attack {unknown[0]!r}; there are {', '.join(ATTACKS)}.")
    facts = machine()
    progress("fitting the bundle", 0.0)
    key = Ed25519PrivateKey.generate()
    table = bundles.table_bundle(key)
    published = [table]
    phases = {"honest": 0}
    if options.hostile:
        phases["with hostile devices"] = max(1, round(options.hostile * options.devices))
    figures = {}
    for name, hostile in phases.items():
        if hostile:
            versions = [bundles.another_version(table, 1 + place, key) for place in range(1, VERSIONS)]
            published = [*versions, bundles.image_bundle(key), table]
        with tempfile.TemporaryDirectory(prefix="vedette-bench-") as folder:
            phase = _Phase(Path(folder), name, options, key, published, hostile, progress)
            figures[name] = asyncio.run(phase.measure())
    return {
        "benchmark": "cloud fleet",
        "command": options.command,
        "machine": facts,
        "devices": options.devices,
        "rate": options.rate,
        "seconds": options.seconds,
        "hostile": phases.get("with hostile devices", 0),
        "store": "SQLite",
        "requirements": requirements(figures),
        "figures": figures,
    }


class _Phase:
    """One run with a service of its own; `hostile`: number of hostile devices among all."""

    def __init__(
        self,
        folder: Path,
        name: str,
        options: FleetOptions,
        key: Ed25519PrivateKey,
        published: list[Bundle],
        hostile: int,
        progress: StageProgress,
    ) -> None:
        self._folder, self._name, self._options, self._hostile = folder, name, options, hostile
        self._published, self._progress = published, progress
        self._setup = Setup(folder, key, {})
        self._start_file, self._rows = folder / "start", folder / "rows.npy"
        self._plans: list[ClientPlan] = []

    async def measure(self) -> dict[str, Any]:
        """Return the figures."""
        self._progress(f"{self._name}: enrolling {self._options.devices} devices", 0.0)
        np.save(self._rows, bundles.sent_rows())
        devices = await self._setup.prepare(self._published, self._options.devices)
        try:
            service = await self._setup.serve()
            clients = self._start_clients(service, devices)
            await self._connected(clients)
            self._start_file.touch()
            use = await self._watch(service, clients)
            await self._ended(clients)
            return self._figures(use)
        finally:
            await asyncio.to_thread(self._setup.stop)

    def _start_clients(self, service: Peer, devices: list[SimulatedDevice]) -> list[SupervisedProcess]:
        count = self._options.clients
        honest, hostile = devices[self._hostile :], devices[: self._hostile]
        shares = [(ClientKind.HONEST, honest[place::count]) for place in range(count)]
        shares += [(ClientKind.HOSTILE, hostile)] if hostile else []
        clients = []
        for place, (kind, share) in enumerate(shares):
            if not share:
                continue
            plan, path = self._plan(service, kind, share, place), self._folder / f"plan-{place}.json"
            path.write_text(plan.model_dump_json(), encoding="utf-8")
            self._plans.append(plan)
            command = [sys.executable, "-m", "cloud.bench.fleet.client", str(path)]
            clients.append(self._setup.launch(f"client-{place}", command))
        return clients

    def _plan(self, service: Peer, kind: ClientKind, share: list[SimulatedDevice], place: int) -> ClientPlan:
        addresses = json.loads((self._setup.settings.data_dir / SERVICE_FILE).read_bytes())
        *others, current = self._published
        images = [item.manifest.bundle_id for item in others if item.manifest.name != current.manifest.name]
        return ClientPlan(
            kind=kind,
            address=service.address,
            enrolment_address=addresses["enrolment_address"],
            ca_pem=share[0].ca_pem.decode(),
            planned=[PlannedDevice.of(device) for device in share],
            bundle_id=current.manifest.bundle_id,
            other_bundle_ids=[item.manifest.bundle_id for item in others if item.manifest.bundle_id not in images],
            image_bundle_id=images[0] if images else "",
            attacks=self._options.attacks,
            image_side=self._options.image_side,
            rows=self._rows,
            rate=self._options.rate,
            seconds=self._options.seconds,
            drain_s=self._options.drain_s,
            seed=10_000 * place,
            start_file=self._start_file,
            result=self._folder / f"result-{place}.json",
        )

    async def _connected(self, clients: list[SupervisedProcess]) -> None:
        deadline_s = time.monotonic() + CONNECT_S
        while any(CONNECTED not in client.output() for client in clients):
            self._check(clients, deadline_s)
            await asyncio.sleep(0.1)

    async def _watch(self, service: Peer, clients: list[SupervisedProcess]) -> _Use:
        """Follow the service until the end of the run."""
        use, cpu_before_s, started_s = _Use(), cpu_seconds(service.pid), time.monotonic()
        stage = f"{self._name}: {self._options.devices} devices send"
        while (done_s := time.monotonic() - started_s) < self._options.seconds:
            self._progress(stage, done_s / self._options.seconds)
            self._check(clients, started_s + self._options.seconds + CLIENT_END_S)
            try:
                use.resident_mib.append(resident_mib(service.pid))
                use.cpu_s = cpu_seconds(service.pid) - cpu_before_s
            except OSError:
                raise VedetteError(f"The service ended after {done_s:.0f} s of the run.") from None
            await asyncio.sleep(min(SAMPLE_S, self._options.seconds / 20))
        use.elapsed_s = time.monotonic() - started_s
        self._progress(f"{self._name}: waiting for the last verdicts", 0.0)
        return use

    async def _ended(self, clients: list[SupervisedProcess]) -> None:
        deadline_s = time.monotonic() + self._options.drain_s + CLIENT_END_S
        while any(client.exit_code() is None for client in clients):
            self._check(clients, deadline_s)
            await asyncio.sleep(0.1)
        self._check(clients, deadline_s)

    def _check(self, clients: list[SupervisedProcess], deadline_s: float) -> None:
        for client in clients:
            if client.exit_code() not in (None, 0):
                raise VedetteError(f"A client process ended: {client.last_error()}.")
        if time.monotonic() > deadline_s:
            raise VedetteError(f"{self._name}: the client processes did not get ready or end in time.")

    def _figures(self, use: _Use) -> dict[str, Any]:
        honest, hostile = ClientResult(), ClientResult()
        for plan in self._plans:
            found = ClientResult.model_validate_json(plan.result.read_bytes())
            (honest if plan.kind is ClientKind.HONEST else hostile).add(found)
        settled = use.resident_mib[int(_settled_share(self._options.seconds) * len(use.resident_mib)) :]
        return {
            "honest_devices": self._options.devices - self._hostile,
            "hostile_devices": self._hostile,
            "samples": honest.produced,
            "acknowledged": honest.acknowledged,
            "lost": honest.lost,
            "not_acknowledged": honest.produced - honest.acknowledged,
            "samples_a_second": honest.acknowledged / use.elapsed_s,
            "acknowledged_ms": _percentiles(honest.acknowledged_ms),
            "verdict_ms": _percentiles(honest.verdict_ms),
            "resident_start_mib": settled[0],
            "resident_end_mib": settled[-1],
            "resident_peak_mib": max(use.resident_mib),
            "service_cores": use.cpu_s / use.elapsed_s,
            "client_cores": (honest.cpu_s + hostile.cpu_s) / use.elapsed_s,
            "answers": dict(sorted(honest.answers.items())),
            "answers_to_hostile": dict(sorted(hostile.answers.items())),
        }


def _settled_share(seconds: float) -> float:
    """Return the share of a run after which memory counts as that of the start, half of a short run at most."""
    return min(0.5, max(SETTLED_SHARE, SETTLED_S / seconds))


def _percentiles(values_ms: list[float]) -> dict[str, float | None]:
    """Return median, 99th percentile and maximum; None without values."""
    if not values_ms:
        return dict.fromkeys(("p50", "p99", "max"))
    p50, p99, most = np.percentile(values_ms, [50, 99, 100])
    return {"p50": float(p50), "p99": float(p99), "max": float(most)}
