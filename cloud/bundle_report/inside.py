"""Facts that only an opened bundle has. Arrays are read alone: no network is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.bundle import FUSION_FILE, Bundle, Manifest
from shared.calibration_modes import CalibrationByMode
from shared.errors import VedetteError

_OWN, _MEMBER, _WEIGHT = "own", "hand", "weight"  # groups of the arrays of a fusion


@dataclass(frozen=True, slots=True)
class Inside:
    """Facts of an opened bundle; `problem` if it cannot be opened.

    Attributes:
        weights: Weight of each fused method; they sum to 1.
        methods: All methods; those without a weight are baselines.
        calibrations: By artefact: held-out normals of its smallest calibration, whether all of its calibrations have a
            tail, and its number of operating modes.
        signer: Id of the trusted key that signed the bundle.
        archive_bytes: Size of all files.
    """

    weights: Mapping[str, float]
    methods: tuple[str, ...]
    calibrations: Mapping[str, tuple[int, bool, int]]
    signer: str
    archive_bytes: int
    problem: str = ""


def read_inside(bundle: Bundle, signer: str) -> Inside:
    """Return the facts of an opened bundle. Blocking."""
    weights: dict[str, float] = {}
    methods: dict[str, None] = {}
    if FUSION_FILE in bundle.files:
        arrays = bundle.arrays(FUSION_FILE)
        names = [path.split("/") for path in arrays]
        methods = dict.fromkeys(name[1] for name in names if name[0] == _OWN and len(name) == 3)
        members = [name[1] for name in names if name[0] == _MEMBER and len(name) == 3]
        weights = {member: 1.0 / len(set(members)) for member in members}
        weights |= {
            path.split("/")[1]: float(value)
            for path, value in arrays.items()
            if path.startswith(f"{_WEIGHT}/") and path.count("/") == 2
        }
    calibrations = {}
    for artefact in bundle.manifest.artefacts:
        if artefact.calibration in bundle.files:
            found = _calibration(bundle, artefact.calibration)
            if found is not None:
                calibrations[artefact.name] = found
    return Inside(weights, tuple(methods), calibrations, signer, sum(map(len, bundle.files.values())))


def _calibration(bundle: Bundle, path: str) -> tuple[int, bool, int] | None:
    """Return the held-out normals of the smallest calibration, whether all have a tail, and the number of modes."""
    try:
        calibration = CalibrationByMode.from_arrays(bundle.arrays(path))
    except VedetteError:
        return None
    each = [*calibration.by_mode.values(), *([calibration.rest] if calibration.rest is not None else [])]
    if not each:
        return None
    has_tail = all(item.tail_scale > 0 for item in each)
    return min(len(item.scores) for item in each), has_tail, len(calibration.by_mode)


def closed(manifest: Manifest, problem: str) -> Inside:
    """Return the facts of a bundle that cannot be opened."""
    size = sum(entry.size_bytes for entry in manifest.files.values())
    return Inside({}, (), {}, "", size, problem)
