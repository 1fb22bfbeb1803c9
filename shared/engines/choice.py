"""Choice of the artefact to run if none is configured: the fastest on this machine, measured once and cached.

Each artefact of a bundle passed the parity gate and has its own calibration, so only speed matters. Another artefact
replaces the preferred one of the bundle if it saves at least a tenth of the time.
"""

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from shared.bundle import Bundle
from shared.engines.configuration import EngineConfiguration
from shared.engines.pieces import usable_cores
from shared.engines.trial import measure
from shared.errors import FileNotWrittenError
from shared.files import write_durably
from shared.logs import EventLog

CHOICES_FILE = "artefacts.json"
MAX_TIME_SHARE = 0.9  # of the preferred artefact's time, for another one to replace it
MAX_CACHED_CHOICES = 100
_INSTRUCTIONS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")

log = EventLog("engines")


@dataclass(frozen=True, slots=True)
class Choice:
    """Artefacts in the order to try them, and the reason for the first."""

    names: tuple[str, ...]
    reason: str


def choose_artefact(bundle: Bundle, batch_size: int, configuration: EngineConfiguration) -> Choice:
    """Return the cached choice, or measure the artefacts, which takes some seconds.

    A new version of a bundle reuses the measurement of the older one.
    """
    preferred = bundle.manifest.preferred_artefact
    names = [preferred, *(item.name for item in bundle.manifest.artefacts if item.name != preferred)]
    if len(names) == 1:
        return Choice((preferred,), "the only one")
    key = _key(bundle, names, batch_size, configuration)
    cached = _read(configuration)
    found = cached.get(key)
    if found is None:
        found = measure(bundle, batch_size, configuration)
        log.info(
            "artefacts_measured",
            bundle=bundle.manifest.bundle_id,
            batch_size=batch_size,
            cpu=cpu(),
            **_log_fields(found),
        )
        if found:
            _cache(configuration, cached, key, found)
    times = {name: value for name in names if isinstance(value := found.get(name), float)}
    if not times:
        return Choice(tuple(names), "preferred; none could be measured")
    fastest = min(times, key=lambda name: times[name])
    if preferred in times and times[fastest] > MAX_TIME_SHARE * times[preferred]:
        fastest = preferred
    others = [name for name in names if name != fastest]
    figures = ", ".join(f"{name} {value:.3g} ms" for name, value in times.items())
    return Choice((fastest, *others), f"{'preferred' if fastest == preferred else 'fastest'}: {figures} a batch")


def cpu() -> str:
    """Return the architecture, the cores of this process, and the instruction sets that speed up INT8."""
    known = []
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "").split()
        known = [name for name in _INSTRUCTIONS if name in flags]
    except OSError:
        pass
    return f"{platform.machine()}/{usable_cores()} {'+'.join(known) or 'no known extensions'}"


def _key(bundle: Bundle, names: Sequence[str], batch_size: int, configuration: EngineConfiguration) -> str:
    """Return a hash of everything that the times depend on."""
    spec = bundle.manifest.input.model_dump_json()
    engines = [_version(package) for package in sorted({artefact.engine for artefact in bundle.manifest.artefacts})]
    settings = configuration.to_json() | {"cache_folder": None}
    facts = [bundle.manifest.name, spec, sorted(names), batch_size, cpu(), settings, *engines]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _log_fields(found: dict[str, float | str]) -> dict[str, str]:
    """Return times and failures as texts for the log."""
    return {name: f"{value:.3g} ms" if isinstance(value, float) else value for name, value in found.items()}


def _read(configuration: EngineConfiguration) -> dict[str, dict[str, float | str]]:
    if configuration.cache_folder is None:
        return {}
    try:
        values = json.loads((configuration.cache_folder / CHOICES_FILE).read_bytes())
        return {
            str(key): {str(name): value for name, value in one.items() if isinstance(value, float | str)}
            for key, one in values.items()
        }
    except (OSError, ValueError, AttributeError):
        return {}


def _cache(
    configuration: EngineConfiguration,
    cached: dict[str, dict[str, float | str]],
    key: str,
    found: dict[str, float | str],
) -> None:
    if configuration.cache_folder is None:
        return
    path = configuration.cache_folder / CHOICES_FILE
    kept = dict(list(cached.items())[-MAX_CACHED_CHOICES + 1 :])
    try:
        write_durably(path, json.dumps({**kept, key: found}).encode())
    except (OSError, FileNotWrittenError) as error:
        log.warning("choice_not_cached", path=path, error=error)
