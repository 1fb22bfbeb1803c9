"""Cache of loaded analyses, by bundle: loading one takes seconds."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from cloud.serving.verdicts import Judge
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

    async def get(self, bundle_id: str) -> tuple[Modality, Judge]:
        """Return the modality of the bundle and its analysis.

        Raises BundleError if the bundle cannot be loaded. Its text goes into verdicts: it names the next step and no
        path of the server, and the log has the whole error. The bundle is not retried for FAILURE_TTL_S seconds, so
        that a damaged bundle does not delay the others. Raises StorageError while the store cannot be read; the next
        call retries at once.
        """
        if bundle_id in self._ready:
            self._ready.move_to_end(bundle_id)
            return self._ready[bundle_id]
        failed_at_s, reason = self._failures.get(bundle_id, (-FAILURE_TTL_S, ""))
        if time.monotonic() - failed_at_s < FAILURE_TTL_S:
            raise BundleError(reason)
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
            raise BundleError(reason) from error
        self._failures.pop(bundle_id, None)
        self._ready[bundle_id] = (bundle.manifest.modality, judge)
        while len(self._ready) > self._capacity:
            self._ready.popitem(last=False)
        return self._ready[bundle_id]


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
