"""Cache of loaded analyses, by bundle: loading one takes seconds."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from cloud.serving.ports import Judge
from cloud.serving.worker import Worker
from shared.bundle import Bundle
from shared.errors import BundleError, BundleIntegrityError, BundleMismatchError, StorageError, UntrustedBundleError
from shared.logs import EventLog
from shared.modality import Modality

FAILURE_TTL_S = 30.0
_LOG = EventLog("serving")


class AnalysisCache:
    """Least recently used cache of `capacity` analyses.

    `open_bundle` reads a bundle. `load` makes its analysis; it blocks and runs in the worker.
    """

    def __init__(
        self,
        open_bundle: Callable[[str], Awaitable[Bundle]],
        load: Callable[[Bundle], Judge],
        worker: Worker,
        capacity: int,
    ) -> None:
        self._open_bundle = open_bundle
        self._load = load
        self._worker = worker
        self._capacity = capacity
        self._ready: OrderedDict[str, tuple[Modality, Judge]] = OrderedDict()
        self._failures: dict[str, tuple[float, str]] = {}
        self._loading = asyncio.Lock()

    def is_decided(self, bundle_id: str) -> bool:
        """Return whether `get` answers at once: the analysis is loaded, or failed to load a moment ago."""
        return bundle_id in self._ready or bool(self._recent_failure(bundle_id))

    async def get(self, bundle_id: str) -> tuple[Modality, Judge]:
        """Return the modality of the bundle and its analysis.

        Raises BundleError if the bundle cannot be loaded. Its text goes into verdicts: it names the next step and no
        path of the server, and the log has the whole error. The bundle is not retried for FAILURE_TTL_S seconds, so
        that a damaged bundle does not delay the others. Raises StorageError while the store cannot be read; the next
        call retries at once.
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
        return self._ready[bundle_id]

    def _recent_failure(self, bundle_id: str) -> str:
        failed_at_s, reason = self._failures.get(bundle_id, (-FAILURE_TTL_S, ""))
        return reason if time.monotonic() - failed_at_s < FAILURE_TTL_S else ""

    async def _load_now(self, bundle_id: str) -> None:
        """Load an analysis, or note the failure; raises StorageError."""
        try:
            bundle = await self._open_bundle(bundle_id)
            judge = await self._worker.run(self._load, bundle)
        except StorageError:
            raise
        except Exception as error:
            _LOG.error("bundle_not_loaded", bundle=bundle_id, error=f"{type(error).__name__}: {error}")
            reason = (
                f"bundle {bundle_id} cannot be loaded: {load_failure(error)}. The log of the service has the details."
            )
            self._failures[bundle_id] = (time.monotonic(), reason)
            return
        self._failures.pop(bundle_id, None)
        self._ready[bundle_id] = (bundle.manifest.modality, judge)
        while len(self._ready) > self._capacity:
            self._ready.popitem(last=False)


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
