"""Checks of sources: bundle, columns and settings, and whether cameras and brokers answer."""

import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge.bundles.cache import BundleCache
from edge.check.published import PublishedBundles
from edge.check.report import Finding, Level, error, ok, warning
from edge.settings.sources import (
    CameraSettings,
    ImageFolderSettings,
    MqttSettings,
    PluginSettings,
    ReplaySettings,
    SourceSettings,
    StdinSettings,
    TailSettings,
)
from edge.sources import open_source
from edge.sources.camera import check_video_file, is_file
from edge.sources.plugins import find_plugin
from shared.broker import PORTS, BrokerLink
from shared.broker_settings import BrokerSettings
from shared.bundle import Bundle, InputSpec
from shared.errors import BundleError, DataError, UnreadableInputError, VedetteError
from shared.tables.dialect import HEAD_BYTES, detect_encoding
from shared.tables.rows import ChannelColumns, RowParser
from shared.texts import without_secrets

PROBE_TIMEOUT_S = 5.0
_CAMERA_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}


def check_source(
    source: SourceSettings, cache: BundleCache | None, published: PublishedBundles | None, *, has_uplink: bool
) -> list[Finding]:
    """Return the findings on one source, without connecting to anything.

    `published`: bundles of the service; None if it was not asked. `has_uplink`: a bundle can be fetched.
    """
    bundle, findings = _bundle(source, cache, published, has_uplink)
    findings.append(_path(source))
    if any(finding.level is Level.ERROR for finding in findings):
        return findings
    if bundle is None:
        findings.append(warning(f"source {source.id}: columns", "are compared once the bundle is fetched and verified"))
    else:
        findings.append(_input(source, bundle))
    return findings


def probe(source: SourceSettings) -> Finding | None:
    """Return whether the camera or broker of a source answers; None for other sources."""
    if isinstance(source, MqttSettings):
        return probe_broker(f"source {source.id}: broker", source)
    if isinstance(source, CameraSettings) and "://" in source.url:
        address = urlsplit(source.url)
        try:
            port = address.port or _CAMERA_PORTS.get(address.scheme)
        except ValueError:
            port = None
        if address.scheme == "udp" or not address.hostname or port is None:
            return None
        return _probe_port(f"source {source.id}: camera", address.hostname, port, without_secrets(source.url))
    return None


def probe_broker(name: str, settings: BrokerSettings, *, is_local: bool = False) -> Finding:
    """Return whether a broker accepts a connection with these credentials. The connection is closed at once.

    `is_local`: check only the files of the settings.
    """
    trial = settings.model_copy(update={"client_id": f"vedette-check-{uuid.uuid4().hex[:8]}"})
    try:
        link = BrokerLink(trial, name)
    except VedetteError as problem:
        return error(name, problem)
    if is_local:
        return ok(name, link.name)
    answered, answer = threading.Event(), [""]

    def connected(client: Any, data: Any, flags: Any, code: Any, properties: Any = None) -> None:
        answer[0] = f"the broker says: {code}" if code.is_failure else ""
        answered.set()

    link.client.on_connect = connected
    address = urlsplit(settings.url)
    port = _probe_port(name, address.hostname or "", address.port or PORTS[address.scheme], link.name)
    if port.level is not Level.OK:
        return port
    link.start()
    is_answered = answered.wait(PROBE_TIMEOUT_S)
    link.stop()
    if not is_answered:
        return warning(name, f"{link.name} does not answer as an MQTT broker; check url, ca and protocol")
    return warning(name, f"{link.name}: {answer[0]}; correct user and password") if answer[0] else ok(name, link.name)


def _bundle(
    source: SourceSettings, cache: BundleCache | None, published: PublishedBundles | None, has_uplink: bool
) -> tuple[Bundle | None, list[Finding]]:
    """Return the bundle that the source would start with, and the findings on it."""
    name, follows = f"source {source.id}: bundle", source.bundle_name
    if cache is None:
        return None, [warning(name, "cannot be verified without the bundle key")]
    bundle = None
    if source.bundle is not None:
        try:
            bundle = cache.open(source.bundle)
        except VedetteError as problem:
            return None, [error(name, problem)]
    if follows is not None:
        fetched = cache.current(follows)
        if fetched is not None and (bundle is None or fetched.manifest.version > bundle.manifest.version):
            bundle = fetched
    findings = [ok(name, f"{bundle.manifest.bundle_id}, signed by a trusted key")] if bundle is not None else []
    if bundle is None and not has_uplink:
        text = f"Source {source.id!r} has no bundle, and the uplink is off: set its bundle, or enrol."
        findings.append(error(name, BundleError(text)))
    elif follows is not None and published is not None and follows not in published.names:
        advice = "vedette cloud publish BUNDLE --config cloud.toml on the service"
        findings.append(warning(name, f"{follows!r} is not published: {advice}"))
    elif bundle is None and published is None:
        findings.append(warning(name, f"{follows!r} is not here yet; it is fetched once the service answers"))
    elif bundle is None and follows is not None:
        fetched, failure = published.fetched(follows) if published is not None else (None, "")
        text = f"{follows!r} is published; vedette edge run fetches it"
        return fetched, [*findings, warning(name, f"{text}; {failure}") if failure else ok(name, text)]
    return bundle, findings


def _path(source: SourceSettings) -> Finding:
    """Return whether the file or folder of a source is there."""
    name = f"source {source.id}: input"
    match source:
        case ReplaySettings() | ImageFolderSettings():
            if not source.path.exists():
                return error(name, DataError(f"{source.path}: not found. Correct path of source {source.id!r}."))
        case TailSettings():
            if not source.path.exists():
                return warning(name, f"{source.path}: not there yet; the agent waits for it")
        case CameraSettings() if source.url.startswith("/dev/") and not Path(source.url).exists():
            return warning(name, f"{source.url}: no such device; the agent waits for it")
        case CameraSettings() if is_file(source):
            return _video(name, source)
        case _:
            return ok(name, source.kind)
    return ok(name, str(getattr(source, "path", "") or without_secrets(str(getattr(source, "url", "")))))


def _video(name: str, source: CameraSettings) -> Finding:
    """Return whether a file is a video whose first frame can be decoded."""
    try:
        check_video_file(source)
    except UnreadableInputError as problem:
        return warning(name, f"{problem} Until then this source fails, and the others go on")
    except VedetteError as problem:
        return error(name, problem)
    return ok(name, source.url)


def _input(source: SourceSettings, bundle: Bundle) -> Finding:
    """Return whether the input fits the bundle: modality, columns, paths and settings."""
    name, spec = f"source {source.id}: columns", bundle.manifest.input
    try:
        if isinstance(source, PluginSettings):
            find_plugin(source)
            return ok(f"source {source.id}: plug-in", f"{source.plugin} is installed")
        is_new_done = isinstance(source, ImageFolderSettings) and source.done is not None and not source.done.exists()
        if not isinstance(source, StdinSettings) and not (is_new_done and not spec.channels):  # opening makes it
            open_source(source, bundle.manifest.modality, spec, threading.Event())
        if isinstance(source, TailSettings):
            if not source.path.exists():
                return warning(name, "are checked once the file is there")
            _check_header(source, spec)
    except UnreadableInputError:  # named by the finding on its input
        return warning(f"source {source.id}: modality", "is checked once the input can be read")
    except VedetteError as problem:
        return error(name, problem)
    if not spec.channels:
        return ok(f"source {source.id}: modality", bundle.manifest.modality.value)
    if isinstance(source, (MqttSettings, StdinSettings)):
        return ok(name, f"{len(spec.channels)} channels have their paths; the readings show whether these are right")
    return ok(name, f"all {len(spec.channels)} channels of the bundle are there")


def _check_header(source: TailSettings, spec: InputSpec) -> None:
    """Check the columns of a growing file whose header is complete; raises DataError."""
    try:
        with source.path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as problem:
        raise DataError(f"{source.path}: cannot be read ({problem.strerror}).") from None
    encoding = detect_encoding(head, source.table.encoding)
    lines, _ = encoding.split_lines(head[encoding.bom_bytes :])
    if not lines:
        return
    columns = ChannelColumns(spec.channels, spec.categories)
    parser = RowParser(source.path, encoding.decode(lines[0]), source.table, hint=spec.decimal, is_live=True)
    parser.select(columns.numeric, columns.texts, missing=spec.missing)


def _probe_port(name: str, host: str, port: int, shown: str) -> Finding:
    started_s = time.monotonic()
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S):
            return ok(name, f"{shown} answers in {(time.monotonic() - started_s) * 1000:.0f} ms")
    except (OSError, UnicodeError) as problem:
        return warning(name, f"{shown} cannot be reached ({problem}); the agent starts and tries again")


def probes(sources: tuple[SourceSettings, ...]) -> Iterator[Finding]:
    """Yield whether each camera and broker answers."""
    for source in sources:
        finding = probe(source)
        if finding is not None:
            yield finding
