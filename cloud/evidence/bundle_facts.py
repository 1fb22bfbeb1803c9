"""Facts of a bundle that explain its verdicts: normal ranges, preprocessing, fused analyzers and normal samples.

Only these facts stay in memory, not the bundle. A shelf holds those of a few bundles and reads one at a time.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shared.bundle import EXAMPLES_FILE, FUSION_FILE, REFERENCE_FILE, Bundle, InputSpec
from shared.errors import BundleError, VedetteError
from shared.logs import EventLog
from shared.modalities import load_preprocessor
from shared.preprocessing import ChannelRanges, ModePreprocessor, Preprocessor, TabularPreprocessor

KEPT_BUNDLES = 8
FAILURE_TTL_S = 30.0
MAX_REFERENCE_VALUES = 2**20  # numbers of normal rows that stay in memory, for each bundle
MAX_PICTURES, MAX_PICTURE_BYTES = 16, 8 * 2**20  # of one bundle
_MEMBERS = "hand/"  # of the fusion: begins the names of the calibrations of its members
_LOG = EventLog("evidence")


@dataclass(frozen=True, slots=True)
class BundleFacts:
    """Facts of one bundle.

    Attributes:
        spec: Format of a sample.
        preprocessor: Preprocessing of its samples.
        ranges: Normal ranges of the measured channels; None for pictures.
        fused: Analyzers whose scores make the fused p-value; the others are baselines. Empty if unknown.
        normal_rows: Held-out normal rows (n, measured features), float64; None for another modality.
        pictures: Held-out normal pictures as PNG files, the golden one first; none in other and older bundles.
    """

    spec: InputSpec
    preprocessor: Preprocessor
    ranges: ChannelRanges | None
    fused: frozenset[str]
    normal_rows: NDArray[np.float64] | None
    pictures: tuple[bytes, ...] = ()


def without_pictures(facts: BundleFacts | None) -> BundleFacts | None:
    """Return the facts without normal pictures."""
    return replace(facts, pictures=()) if facts is not None else None


class BundleShelf:
    """Facts of the bundles used last; `read` opens a bundle of the registry."""

    def __init__(self, read: Callable[[str], Awaitable[Bundle]]) -> None:
        self._read = read
        self._known: OrderedDict[str, BundleFacts] = OrderedDict()
        self._failed: dict[str, tuple[float, str]] = {}
        self._turn = asyncio.Lock()

    async def facts(self, bundle_id: str) -> tuple[BundleFacts | None, str]:
        """Return the facts of a bundle and "", or None and the reason in one sentence. Raises no error."""
        if not bundle_id:
            return None, "No bundle judged this sample, so its normal ranges are unknown."
        async with self._turn:
            if bundle_id in self._known:
                self._known.move_to_end(bundle_id)
                return self._known[bundle_id], ""
            failed_at_s, reason = self._failed.get(bundle_id, (-FAILURE_TTL_S, ""))
            if time.monotonic() - failed_at_s < FAILURE_TTL_S:
                return None, reason
            try:
                bundle = await self._read(bundle_id)
                facts = await asyncio.to_thread(bundle_facts, bundle)
            except (VedetteError, ValueError, KeyError) as error:
                _LOG.warning("bundle_facts_not_read", bundle=bundle_id, error=f"{type(error).__name__}: {error}")
                reason = f"Bundle {bundle_id} cannot be read: its normal ranges and expected values are not shown."
                if len(self._failed) >= KEPT_BUNDLES:
                    self._failed.clear()
                self._failed[bundle_id] = (time.monotonic(), reason)
                return None, reason
            self._known[bundle_id] = facts
            if len(self._known) > KEPT_BUNDLES:
                self._known.popitem(last=False)
            return facts, ""


def bundle_facts(bundle: Bundle) -> BundleFacts:
    """Return the facts of a bundle; raises BundleError if its preprocessing is damaged. Blocking."""
    preprocessor = load_preprocessor(bundle)
    fused = frozenset[str]()
    if FUSION_FILE in bundle.files:
        names = (path.split("/") for path in bundle.arrays(FUSION_FILE) if path.startswith(_MEMBERS))
        fused = frozenset(name[1] for name in names)
    return BundleFacts(
        spec=bundle.manifest.input,
        preprocessor=preprocessor,
        ranges=preprocessor.ranges(),
        fused=fused,
        normal_rows=_normal_rows(bundle, preprocessor),
        pictures=_pictures(bundle),
    )


def _pictures(bundle: Bundle) -> tuple[bytes, ...]:
    """Return the normal pictures in the bundle, at most MAX_PICTURES and MAX_PICTURE_BYTES of them."""
    if EXAMPLES_FILE not in bundle.files or len(bundle.read(EXAMPLES_FILE)) > MAX_PICTURE_BYTES:
        return ()
    found = bundle.arrays(EXAMPLES_FILE)
    return tuple(found[name].tobytes() for name in sorted(found)[:MAX_PICTURES])


def _normal_rows(bundle: Bundle, preprocessor: Preprocessor) -> NDArray[np.float64] | None:
    """Return held-out rows in the units of the sample, of a table's bundle that has them."""
    inner = preprocessor.inner if isinstance(preprocessor, ModePreprocessor) else preprocessor
    if not isinstance(inner, TabularPreprocessor) or REFERENCE_FILE not in bundle.files:
        return None
    held_out = bundle.arrays(REFERENCE_FILE).get("held_out")
    if held_out is None or len(held_out.shape) != 2:
        return None
    most = max(1, MAX_REFERENCE_VALUES // max(1, held_out.shape[1]))
    if held_out.shape[1] < len(inner.spec.channels):
        raise BundleError("its held-out rows do not fit its features")
    return inner.raw_values(held_out[:most])
