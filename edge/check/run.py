"""All checks of a device: state, disk, identity, clock, service, sources, alarm sinks and the local port."""

import os
import socket
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import grpc

from edge.bundles.cache import BundleCache
from edge.check.published import PublishedBundles, open_channel
from edge.check.report import Finding, Level, error, found, ok, warning
from edge.check.sources import PROBE_TIMEOUT_S, check_source, probe_broker, probes
from edge.disk import MIN_FREE_BYTES, free_bytes, free_text, too_full_text
from edge.settings import AgentSettings
from edge.settings.alarms import MqttSinkSettings, WebhookSettings
from edge.uplink.identity import Identity, is_enrolled, load_identity
from edge.uplink.link import diagnose
from edge.uplink.trust import BundleKeys
from shared.addresses import Address
from shared.clocks import device_clock_warning
from shared.errors import (
    CertificateError,
    DataError,
    FileLockedError,
    PortInUseError,
    SettingsError,
    StorageError,
)
from shared.file_lock import FileLock
from shared.signing_keys import key_id
from vedette.v1 import fleet_pb2, fleet_pb2_grpc

BUILT_AT_S = 1.7e9  # November 2023: no device that runs this version has an earlier date
CERTIFICATE_WARNING_DAYS = 14
DISK = "disk"


def check(settings: AgentSettings, *, is_local: bool = False) -> list[Finding]:
    """Return the findings of all checks. Nothing is left on disk or in the service.

    `is_local`: ask neither service nor brokers nor cameras, which an agent asks again until they answer.
    """
    is_running, state = _state(settings.state_dir)
    findings = [state, *_disk(settings), _clock()]
    cache, key = _trusted(settings)
    findings.append(key)
    published: PublishedBundles | None = None
    has_uplink = _has_uplink(settings)
    if has_uplink:
        identity, finding = _identity(settings.state_dir)
        findings.append(finding)
        if identity is not None and not is_local:
            published, answers = _service(settings, identity)
            findings += answers
    if not settings.sources:
        text = "The configuration names no source: add a [[sources]] table (docs/SOURCES.md)."
        findings.append(error("sources", SettingsError(text)))
    if published is not None and cache is not None:
        published.fetch_missing(settings.sources, cache)
    for source in settings.sources:
        findings += check_source(source, cache, published, has_uplink=has_uplink)
    if not is_local:
        findings += probes(settings.sources)
    findings += _alarms(settings, is_local=is_local)
    if settings.metrics.address and not is_running:
        findings.append(found("metrics port", lambda: _port(settings.metrics.address)))
    return findings


def check_start(settings: AgentSettings) -> list[Finding]:
    """Return the findings on all that an agent needs at its start, in the order and with the errors of `check`.

    A full disk is a warning: the agent screens and raises alarms nevertheless.
    """
    findings = check(settings, is_local=True)
    return [warning(DISK, one.text) if (one.name, one.level) == (DISK, Level.ERROR) else one for one in findings]


def _has_uplink(settings: AgentSettings) -> bool:
    """Return whether the agent would connect to a service."""
    return settings.router.mode != "edge_only" or is_enrolled(settings.state_dir)


def _state(state_dir: Path) -> tuple[bool, Finding]:
    """Return whether an agent runs with this state, and the finding on the folder."""
    name, existing = "state", state_dir
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return False, error(name, StorageError(f"{state_dir}: cannot be written. Choose another state_dir."))
    if (state_dir / "lock").exists():
        try:
            FileLock(state_dir / "lock").release()
        except FileLockedError as problem:
            return True, warning(name, f"{state_dir}: an agent runs here (process {problem.holder}); stop it first")
        except OSError as problem:
            return False, error(name, StorageError(f"{state_dir}: {problem.strerror}. Choose another state_dir."))
    return False, ok(name, str(state_dir))


def _disk(settings: AgentSettings) -> list[Finding]:
    """Return whether the disk has room for a full spool."""
    folder = settings.state_dir
    free, wanted = free_bytes(folder), settings.spool.max_bytes
    spool = settings.state_dir / "spool.db"
    wanted = max(0, wanted - (spool.stat().st_size if spool.exists() else 0))
    text = free_text(folder)
    if free < MIN_FREE_BYTES:
        return [error(DISK, StorageError(f"{too_full_text(folder)}. Free space."))]
    if free < wanted:
        advice = "free space, or lower spool.max_bytes"
        return [warning(DISK, f"{text}, and a full spool takes {wanted / 2**20:,.0f} MiB more: {advice}")]
    return [ok(DISK, text)]


def _clock() -> Finding:
    now_s = time.time()
    if now_s < BUILT_AT_S:
        return warning("clock", f"shows {datetime.fromtimestamp(now_s, UTC):%Y-%m-%d}: set it, for example by NTP")
    return ok("clock", f"{datetime.fromtimestamp(now_s, UTC):%Y-%m-%d %H:%M:%S} UTC")


def _trusted(settings: AgentSettings) -> tuple[BundleCache | None, Finding]:
    """Return the cache of bundles, which trusts the device's keys, or None without a key."""
    try:
        keys = BundleKeys(settings.state_dir, settings.bundle_key).keys
    except CertificateError as problem:
        return None, error("bundle key", problem)
    return BundleCache(settings.state_dir / "bundles", keys), ok("bundle key", f"trusts {', '.join(map(key_id, keys))}")


def _identity(state_dir: Path) -> tuple[Identity | None, Finding]:
    try:
        identity = load_identity(state_dir)
    except CertificateError as problem:
        return None, error("identity", problem)
    days = (identity.not_after - datetime.now(UTC)).days
    text = f"{identity.device_id}, certificate valid until {identity.not_after:%Y-%m-%d}"
    if days < CERTIFICATE_WARNING_DAYS:
        advice = "the agent renews it while it is connected; else enrol the device again"
        return identity, warning("identity", f"{text}: {advice}")
    return identity, ok("identity", text)


def _service(settings: AgentSettings, identity: Identity) -> tuple[PublishedBundles | None, list[Finding]]:
    """Ask the service for its bundles and its clock; the answer is None if it does not answer."""
    address = settings.uplink.address or identity.address
    with open_channel(identity, address) as channel:
        started_s, sent_at_s = time.monotonic(), time.time()
        try:
            stub = fleet_pb2_grpc.FleetStub(channel)
            answer = stub.Heartbeat(fleet_pb2.HeartbeatRequest(query_only=True), timeout=PROBE_TIMEOUT_S)
        except grpc.RpcError as problem:
            reason = diagnose(identity, address) or str(problem.details())
            return None, [warning("service", f"{reason} The agent starts, and samples wait in its spool")]
    took_s = time.monotonic() - started_s
    findings = [ok("service", f"{address} answers in {took_s * 1000:.0f} ms")]
    if answer.service_time_ms:
        off = device_clock_warning(sent_at_s + took_s / 2 - answer.service_time_ms / 1000)
        findings.append(warning("clock", off) if off else ok("clock", "agrees with the service's to a minute"))
    return PublishedBundles(identity, address, answer.desired), findings


def _alarms(settings: AgentSettings, *, is_local: bool) -> list[Finding]:
    """Return whether alarm sinks have their files and, unless `is_local`, answer.

    No message is sent: `vedette edge test-alarms` does.
    """
    findings = []
    for sink in settings.alarms:
        name = f"alarms {sink.id}"
        match sink:
            case MqttSinkSettings():
                findings.append(probe_broker(name, sink, is_local=is_local))
            case WebhookSettings():
                findings.append(found(name, partial(_readable, sink.secret_file)))
            case _:
                findings.append(found(name, partial(_writable, sink.path)))
    return findings


def _readable(path: Path) -> str:
    try:
        path.read_bytes()
    except OSError as problem:
        raise DataError(f"{path}: cannot be read ({problem.strerror}). Correct secret_file.") from None
    return f"{path} is there; vedette edge test-alarms sends a message"


def _writable(path: Path) -> str:
    folder = path if path.exists() else path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not os.access(folder, os.W_OK) or (path.exists() and not path.is_file()):
        raise DataError(f"{path}: cannot be written. Correct path.")
    return str(path)


def _port(address: str) -> str:
    """Return the address if an agent can listen there; raises PortInUseError."""
    listen = Address.parse(address)
    try:
        with socket.socket(socket.AF_INET6 if ":" in listen.host else socket.AF_INET) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((listen.host, listen.port))
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise PortInUseError(f"{address}: cannot listen there ({reason}). Set another metrics.address.") from None
    return f"{address} is free" if listen.port else "any free port"
