"""Cache of loaded analyses, by bundle: loading one takes seconds.

The cache is bounded in bytes, measured on the tensors and arrays of each analysis after loading it.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cloud.serving.bounded_judge import free_cached_memory, is_out_of_memory
from cloud.serving.ports import Judge
from cloud.serving.resident_memory import resident_bytes
from cloud.serving.worker import Worker
from shared.bundle import Bundle
from shared.errors import (
    BundleError,
    BundleIntegrityError,
    BundleMismatchError,
    ConnectionFailedError,
    StorageError,
    UntrustedBundleError,
)
from shared.logs import EventLog
from shared.modality import Modality

FAILURE_TTL_S = 30.0
MAX_KNOWN = 1024  # sizes of bundles
_LOG = EventLog("serving")


@dataclass(frozen=True, slots=True)
class _Resident:
    modality: Modality
    judge: Judge
    size_bytes: int


class AnalysisCache:
    """Least recently used cache of at most `capacity` analyses of at most `budget_bytes`.

    The analysis used last always stays. `open_bundle` reads a bundle. `load` makes its analysis; it blocks and runs in
    the worker. If it runs out of memory, all other analyses leave and it is tried once more.
    """

    def __init__(
        self,
        open_bundle: Callable[[str], Awaitable[Bundle]],
        load: Callable[[Bundle], Judge],
        worker: Worker,
        capacity: int,
        budget_bytes: int,
    ) -> None:
        self._open_bundle = open_bundle
        self._load = load
        self._worker = worker
        self._capacity = capacity
        self._budget_bytes = budget_bytes
        self._ready: OrderedDict[str, _Resident] = OrderedDict()
        self._known_bytes: dict[str, int] = {}  # of analyses loaded earlier
        self._failures: dict[str, tuple[float, str]] = {}
        self._loading = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def resident_bytes(self) -> int:
        """Bytes of the tensors and arrays of all analyses in memory."""
        return sum(resident.size_bytes for resident in self._ready.values())

    def is_decided(self, bundle_id: str) -> bool:
        """Return whether `get` answers at once: the analysis is loaded, or failed to load a moment ago."""
        return bundle_id in self._ready or bool(self._recent_failure(bundle_id))

    async def get(self, bundle_id: str) -> tuple[Modality, Judge]:
        """Return the modality of the bundle and its analysis.

        Raises BundleError if the bundle cannot be loaded. Its text goes into verdicts: it names the next step and no
        path of the server, and the log has the whole error. The bundle is not retried for FAILURE_TTL_S seconds, so
        that a damaged bundle does not delay the others. Raises StorageError while the store cannot be read, and
        ConnectionFailedError while no replica of the analysis can be reached; the next call retries at once.
        """
        reason = self._recent_failure(bundle_id)
        if bundle_id not in self._ready and not reason:
            async with self._loading:
                if not self.is_decided(bundle_id):  # perhaps loaded meanwhile
                    await self._load_now(bundle_id)
            reason = self._recent_failure(bundle_id)
        if bundle_id not in self._ready:
            raise BundleError(reason)
        self._ready.move_to_end(bundle_id)
        resident = self._ready[bundle_id]
        return resident.modality, resident.judge

    def _recent_failure(self, bundle_id: str) -> str:
        failed_at_s, reason = self._failures.get(bundle_id, (-FAILURE_TTL_S, ""))
        return reason if time.monotonic() - failed_at_s < FAILURE_TTL_S else ""

    async def _load_now(self, bundle_id: str) -> None:
        """Load an analysis, or note the failure; raises StorageError or ConnectionFailedError."""
        try:
            bundle = await self._open_bundle(bundle_id)
            self._make_room(self._known_bytes.get(bundle_id, 0), self._capacity - 1)
            judge, size_bytes = await self._load_measured(bundle)
        except (StorageError, ConnectionFailedError):
            raise
        except Exception as error:
            _LOG.error("bundle_not_loaded", bundle=bundle_id, error=f"{type(error).__name__}: {error}")
            reason = (
                f"bundle {bundle_id} cannot be loaded: {load_failure(error)}. The log of the service has the details."
            )
            self._failures[bundle_id] = (time.monotonic(), reason)
            return
        self._failures.pop(bundle_id, None)
        if len(self._known_bytes) >= MAX_KNOWN:
            self._known_bytes.clear()
        self._known_bytes[bundle_id] = size_bytes
        self._make_room(size_bytes, self._capacity - 1)
        self._ready[bundle_id] = _Resident(bundle.manifest.modality, judge, size_bytes)

    async def _load_measured(self, bundle: Bundle) -> tuple[Judge, int]:
        """Return the analysis and its bytes; if memory is used up, load it again as the only one."""

        def load() -> tuple[Judge, int]:
            judge = self._load(bundle)
            return judge, resident_bytes(judge)

        try:
            return await self._worker.run(load)
        except Exception as error:
            if not self._ready or not is_out_of_memory(error):
                raise
        self._make_room(self._budget_bytes, 0)
        free_cached_memory()
        return await self._worker.run(load)

    def _make_room(self, size_bytes: int, others: int) -> None:
        """Remove analyses until at most `others` are left and `size_bytes` fit into the budget beside them."""
        while self._ready and (len(self._ready) > others or self.resident_bytes + size_bytes > self._budget_bytes):
            bundle_id, resident = self._ready.popitem(last=False)
            _LOG.info("bundle_left_memory", bundle=bundle_id, bytes=resident.size_bytes)


def load_failure(error: Exception) -> str:
    """Return the kind of an error and the next step, without the text of the error, which may hold paths."""
    if isinstance(error, UntrustedBundleError):
        return "no trusted key signed it: sign it with a trusted key (vedette bundle sign) and publish it again"
    if isinstance(error, BundleIntegrityError):
        return "it is damaged: publish it again"
    if isinstance(error, BundleMismatchError):
        return "it was made for another version of Vedette or another kind of samples: train it again"
    if isinstance(error, BundleError):
        return "it is missing, damaged or incomplete: publish it again"
    return f"making its analysis failed ({type(error).__name__})"
