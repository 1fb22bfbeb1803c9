"""`vedette federated run`: make the next bundle from the current one and the devices' training.

The devices receive the head of the current bundle and train it; the average of their heads becomes a new bundle as in
training: exported, quantised, checked by the parity gate, calibrated, signed. It is published only if all succeeds.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from cloud.federation import flower_run
from cloud.federation.exchange import RunFolder, RunOutcome
from cloud.federation.flower_run import RunPlan
from cloud.federation.superlink import is_healthy
from cloud.modalities import cloud_modality
from cloud.settings import StoreLocation
from cloud.store import open_store
from cloud.store.engine import check_store
from cloud.store.registry import Registry, check_no_rollout, publish_to
from cloud.system.rounds import PLAN_FILE, RESULT_FILE, RunPlanFacts
from shared import federation
from shared.addresses import Address
from shared.bundle import HEAD_FILE, Bundle
from shared.diffusion.distillation import DistillationSettings
from shared.errors import (
    BundleError,
    BundleMismatchError,
    ConnectionFailedError,
    FederationError,
    FileLockedError,
    StorageError,
    VedetteError,
)
from shared.file_lock import FileLock
from shared.files import write_durably
from shared.modalities import preprocessing_id
from shared.preprocessing import mask_width

RUNS_FOLDER = "runs"
HEALTH_POLL_S = 0.5


@dataclass(frozen=True)
class RoundsRequest:
    """Request for federated rounds; times in seconds."""

    bundle_name: str
    store: StoreLocation
    state_dir: Path
    address: Address
    authority: Path | None
    rounds: int = 1
    min_clients: int = 2
    wait_clients: int = 2
    wait_s: float = 60.0
    round_s: float = 120.0
    min_samples: int = 100
    distillation: DistillationSettings = field(default_factory=lambda: RoundsRequest.local_training())

    @staticmethod
    def local_training(*, steps: int = 400, learning_rate: float = 5e-4) -> DistillationSettings:
        """Return the settings of a device's training: as in `vedette train`, but short, from a trained head."""
        return DistillationSettings(
            steps=steps,
            learning_rate=learning_rate,
            batch_size=256,
            perturbed=30_000,
            max_reference=4096,
            max_seconds=60,
        )


@dataclass(frozen=True)
class RoundsReport:
    """Result of the rounds.

    `clients`: devices in the last aggregate. `train_seconds`: sum over rounds of the slowest device.
    """

    status: str
    clients: int
    rounds: int
    seconds: float
    train_seconds: float
    bundle_before: str
    bundle_after: str
    details: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def run_rounds(
    request: RoundsRequest, signing_key: Ed25519PrivateKey, *, report: Callable[[str], None]
) -> RoundsReport:
    """Run the rounds and publish the new bundle; `report` receives a line at each step.

    Raises SettingsError if there is no store, FederationError if a round fails or another run is in progress,
    BundleError or BundleMismatchError if the bundle cannot take part, ParityError if the new one does not pass its
    gate.
    """
    check_store(request.store)
    started_s = time.monotonic()
    with _run_lock(request.state_dir):
        before, version = asyncio.run(_current_bundle(request, signing_key))
        report(f"Starting from {before.manifest.bundle_id}.")
        _wait_for_server(request)
        folder = RunFolder(_new_folder(request.state_dir / RUNS_FOLDER, request.bundle_name))
        head, plan = _head_arrays(before), _plan(request, before)
        folder.write_initial(head)
        _write_facts(folder, request, plan, before, sum(array.nbytes for array in head.values()))
        outcome = flower_run.run(
            folder,
            plan,
            request.address,
            request.authority,
            show=lambda event: _report_event(event, report),
        )
        report("Building the bundle: export, INT8, parity gate, calibration, signature.")
        try:
            after = _rebuild(before, folder.aggregate(), outcome, signing_key, version)
            asyncio.run(publish_to(request.store, after, signing_key.public_key()))
        except VedetteError as error:
            _write_result(folder, error=str(error))
            raise
        _write_result(folder, bundle_after=after.manifest.bundle_id)
    result = RoundsReport(
        status="completed",
        clients=len(outcome.rounds[-1].clients),
        rounds=len(outcome.rounds),
        seconds=round(time.monotonic() - started_s, 2),
        train_seconds=round(_train_seconds(outcome), 2),
        bundle_before=before.manifest.bundle_id,
        bundle_after=after.manifest.bundle_id,
        details=[asdict(record) for record in outcome.rounds],
    )
    report(f"Published {result.bundle_after} after {result.seconds:.0f} s, with {result.clients} devices.")
    return result


def _write_facts(folder: RunFolder, request: RoundsRequest, plan: RunPlan, before: Bundle, head_bytes: int) -> None:
    """Store what pages show of a run beside its outcome."""
    now_s = time.time()
    facts = RunPlanFacts(
        bundle_name=request.bundle_name,
        bundle_before=before.manifest.bundle_id,
        rounds=request.rounds,
        min_clients=request.min_clients,
        started_at_s=now_s,
        deadline_s=now_s + plan.timeout_s,
        head_bytes=head_bytes,
    )
    write_durably(folder.path / PLAN_FILE, facts.model_dump_json().encode())


def _write_result(folder: RunFolder, **result: str) -> None:
    write_durably(folder.path / RESULT_FILE, json.dumps(result).encode())


def _wait_for_server(request: RoundsRequest) -> None:
    """Wait for the SuperLink; raises ConnectionFailedError if it does not answer in time."""
    deadline_s = time.monotonic() + request.wait_s
    while not is_healthy(request.address, request.authority):
        if time.monotonic() > deadline_s:
            raise ConnectionFailedError(
                f"No server answers at {request.address}: start it with vedette federated server, or name it with "
                "--server."
            )
        time.sleep(HEALTH_POLL_S)


async def _current_bundle(request: RoundsRequest, signing_key: Ed25519PrivateKey) -> tuple[Bundle, int]:
    """Return the current bundle, verified, and the version of the next one."""
    async with open_store(request.store) as store:
        registry = Registry(store, request.store, signing_key.public_key())
        async with store.reading() as connection:  # now: the result of the round is published at its end
            await check_no_rollout(connection, request.bundle_name)
        current = await registry.current(request.bundle_name)
        if current is None:
            names = ", ".join(entry.name for entry in await registry.all_current()) or "no bundle"
            raise BundleError(
                f"No bundle {request.bundle_name!r} in the registry, which has {names}: publish it with vedette cloud "
                "publish."
            )
        newest = (await registry.versions(request.bundle_name))[0].version
        bundle = await registry.bundle(current.bundle_id)
    if not cloud_modality(bundle.manifest.modality).takes_new_heads:
        raise BundleMismatchError(
            f"{current.bundle_id} is for {bundle.manifest.modality}, and devices keep normal samples of tabular and "
            "series sources only: choose one of those."
        )
    return bundle, newest + 1


def _head_arrays(bundle: Bundle) -> dict[str, NDArray[Any]]:
    try:
        return dict(load(bundle.read(HEAD_FILE)))
    except SafetensorError as error:
        raise BundleError(f"Bundle {bundle.manifest.bundle_id}: {HEAD_FILE} is no array file: {error}.") from None


def _plan(request: RoundsRequest, bundle: Bundle) -> RunPlan:
    return RunPlan(
        rounds=request.rounds,
        min_clients=request.min_clients,
        wait_clients=max(request.wait_clients, request.min_clients),
        wait_s=request.wait_s,
        round_s=request.round_s,
        training={
            federation.KEY_BUNDLE_NAME: bundle.manifest.name,
            federation.KEY_PREPROCESSING_ID: preprocessing_id(bundle.manifest),
            federation.KEY_DISTILLATION: request.distillation.model_dump_json(),
            federation.KEY_MASKED: mask_width(bundle.manifest.input),
            federation.KEY_MODES: len(bundle.manifest.input.modes),
            federation.KEY_MIN_SAMPLES: request.min_samples,
        },
    )


def _rebuild(
    before: Bundle, head: dict[str, NDArray[Any]], outcome: RunOutcome, signing_key: Ed25519PrivateKey, version: int
) -> Bundle:
    from cloud.training import rebuild_bundle  # imports the exporters: not needed while waiting

    note = {
        "federated": {
            "rounds": len(outcome.rounds),
            "clients": len(outcome.rounds[-1].clients),
            "samples": int(sum(metrics[federation.METRIC_SAMPLES] for metrics in outcome.rounds[-1].clients.values())),
            "train_seconds": round(_train_seconds(outcome), 2),
        }
    }
    after: Bundle = rebuild_bundle(before, head, signing_key=signing_key, version=version, training_note=note)
    return after


def _train_seconds(outcome: RunOutcome) -> float:
    seconds = federation.METRIC_TRAIN_SECONDS
    return sum(max((client[seconds] for client in record.clients.values()), default=0.0) for record in outcome.rounds)


def _report_event(event: dict[str, Any], report: Callable[[str], None]) -> None:
    """Report one event of the log as text."""
    match event:
        case {"event": "connected", "devices": devices, "wanted": wanted}:
            report(f"{devices} of {wanted} devices are connected.")
        case {"event": "round", "number": number, "devices": devices}:
            report(f"Round {number}: {devices} devices train on their own normal samples.")
        case {"event": "update", "device": device, "metrics": metrics}:
            report(
                f"Device {device}: {metrics[federation.METRIC_SAMPLES]:.0f} samples, "
                f"{metrics[federation.METRIC_TRAIN_SECONDS]:.1f} s, loss {metrics[federation.METRIC_LOSS]:.4f}."
            )
        case {"event": "refusal", "device": device, "reason": reason}:
            report(f"Device {device} does not take part: {reason}.")


def _new_folder(parent: Path, name: str) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for count in range(1000):
        path = parent / (f"{stamp}-{name}" if not count else f"{stamp}-{name}-{count}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(f"{path}: cannot be made ({error}). Choose another --state-dir.") from None
        return path.resolve()
    raise StorageError(f"{parent}: no free name for the run. Remove old runs.")


@contextlib.contextmanager
def _run_lock(state_dir: Path) -> Iterator[None]:
    """Hold the lock of the state folder, which the system releases when this process ends."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(state_dir / "run.lock")
    except FileLockedError:
        raise FederationError(f"{state_dir}: another federated run is in progress. Wait for its end.") from None
    except OSError as error:
        raise StorageError(f"{state_dir}: cannot be written ({error}). Choose another --state-dir.") from None
    with lock:
        yield
