"""Storing of verdicts: a store that cannot be written is tried again, a verdict that it refuses becomes undecided."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cloud.serving.verdicts import undecided
from cloud.store import Store
from cloud.store.events import WrittenEvent
from cloud.store.judging import WaitingSample, store_verdicts
from cloud.store.map_places import MapPlaces
from shared.backoff import Backoff
from shared.errors import RefusedRowError, StorageError
from shared.logs import EventLog, Throttle
from shared.samples import Verdict

RETRY_MIN_S, RETRY_MAX_S = 0.2, 10.0
REFUSED = "the store refuses its verdict"
_LOG = EventLog("analysis")
_throttle = Throttle()


@dataclass(slots=True)
class StoredVerdicts:
    """Verdicts as they were stored, with their events.

    `refused`: samples for which the store takes no verdict, not even an undecided one; they still wait.
    """

    judged: list[tuple[WaitingSample, Verdict]] = field(default_factory=list)
    written: list[WrittenEvent] = field(default_factory=list)
    refused: list[WaitingSample] = field(default_factory=list)


async def store_or_refuse(
    store: Store, judged: Sequence[tuple[WaitingSample, Verdict]], on_failure: Callable[[Exception], None]
) -> StoredVerdicts:
    """Store the verdicts, all in one transaction if the store takes each of them.

    Else they are halved until each refused verdict is alone, and its sample becomes undecided. A store that cannot be
    written is tried again without limit, because judging the samples again would cost more than waiting; `on_failure`
    receives each such error. Other errors than those of the store are raised: the samples then stay in the queue.
    """
    result, places = StoredVerdicts(), MapPlaces()
    parts = [list(judged)]
    while parts:
        part = parts.pop()
        try:
            result.written += await _store(store, part, places, on_failure)
            result.judged += part
        except RefusedRowError as error:
            middle = len(part) // 2
            parts += [part[middle:], part[:middle]] if middle else _alone(part[0], error, result)
    return result


async def _store(
    store: Store,
    judged: Sequence[tuple[WaitingSample, Verdict]],
    places: MapPlaces,
    on_failure: Callable[[Exception], None],
) -> list[WrittenEvent]:
    """Store the verdicts in one transaction, as soon as the store can be written."""
    backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
    while True:
        try:
            return await store_verdicts(store, judged, places)
        except RefusedRowError:
            raise
        except StorageError as error:
            on_failure(error)
            await asyncio.sleep(backoff.next_s())


def _alone(
    refused: tuple[WaitingSample, Verdict], error: Exception, result: StoredVerdicts
) -> list[list[tuple[WaitingSample, Verdict]]]:
    """Return an undecided verdict to store instead of a refused one; none if an undecided one was refused."""
    waiting, verdict = refused
    kind = type(error.__cause__ or error).__name__
    is_last = verdict.reason.startswith(REFUSED)
    if count := _throttle.allow(f"{kind} {is_last}"):
        advice = "the sample waits until the next start" if is_last else "the sample becomes undecided"
        _LOG.error("verdict_refused", sample_id=waiting.sample_id, error=error, advice=advice, count=count)
    if is_last:
        result.refused.append(waiting)
        return []
    return [[(waiting, undecided(waiting, f"{REFUSED} ({kind}). The log of the service has the details."))]]
