"""Work of `vedette cloud compare`: find the bundles, follow a comparison, judge it here where no service runs."""

import asyncio
import contextlib
import difflib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.comparison.report import ComparisonDetail, comparison_detail
from cloud.comparison.run import NO_SAMPLES
from cloud.service.comparisons import ComparisonRunner
from cloud.service.trusted_key import trusted_key_for_command
from cloud.settings import CloudSettings
from cloud.store import Store
from cloud.store.bundle_queries import bundle_page
from cloud.store.comparison_samples import ComparedSample, compared_samples
from cloud.store.comparisons import UNFINISHED, Comparison, ComparisonStatus, cancel, is_one_judged, one_comparison
from cloud.store.registry import current_bundles, entry_of
from shared.errors import BundleError, ConnectionFailedError, DataError, StorageError, StoreBusyError, VedetteError

POLL_S = 0.5
UNATTENDED_S = 20.0  # without a claim on any comparison; a service looks for one every 2 seconds
_NAMED = 200  # newest bundles among which a similar name is looked for


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """A comparison with its judged samples."""

    comparison: Comparison
    judged: list[ComparedSample]

    def as_json(self) -> dict[str, Any]:
        """Return the same values as the HTTP API."""
        detail = ComparisonDetail.model_validate(comparison_detail(self.comparison, self.judged))
        return detail.model_dump(mode="json")


async def bundle_id_of(connection: AsyncConnection, text: str) -> str:
    """Return the id of a bundle, or of the current bundle of a name; raises BundleError for neither."""
    if await entry_of(connection, text) is not None:
        return text
    for entry in await current_bundles(connection):
        if entry.name == text:
            return entry.bundle_id
    found = [bundle.entry for bundle in await bundle_page(connection, size=_NAMED, newest_first=True)]
    if ids := [entry.bundle_id for entry in found if entry.name == text]:
        raise BundleError(f"{text!r} has no current bundle: give the id of one of its bundles ({', '.join(ids[:5])}).")
    known = [word for entry in found for word in (entry.name, entry.bundle_id)]
    if near := difflib.get_close_matches(text, known, n=1, cutoff=0.5):
        advice = f"did you mean {near[0]!r}?"
    elif found:
        advice = f"names are {', '.join(sorted({entry.name for entry in found})[:10])}."
    else:
        advice = "publish one with vedette cloud publish."
    raise BundleError(f"No bundle {text[:128]!r} in the registry: {advice}")


async def read(store: Store, number: int) -> ComparisonResult:
    """Return a comparison; raises DataError for an unknown one."""
    async with store.reading() as connection:
        found = await one_comparison(connection, number)
        if found is None:
            raise unknown(number)
        return ComparisonResult(found, await compared_samples(connection, number))


def unknown(number: int) -> DataError:
    """Return the error for a comparison that is not stored."""
    return DataError(f"No comparison {number}: vedette cloud compare list shows the newest; 100 are kept.")


def runner_here(store: Store, settings: CloudSettings) -> ComparisonRunner:
    """Return a runner in this process, for a store without a service; raises CertificateError."""

    def fail(error: Exception) -> None:
        raise error

    key = trusted_key_for_command(settings)
    return ComparisonRunner(store, settings.analysis, settings.store, key, fail, live_first=False)


async def follow(
    store: Store,
    number: int,
    show: Callable[[Comparison], None],
    runner: ComparisonRunner | None,
) -> ComparisonResult:
    """Show the progress of a comparison until it ends, and return it. `runner`: judges it here; None for the service.

    A comparison that is judged here is cancelled if this ends before it. Raises ConnectionFailedError if no service
    judges a comparison for UNATTENDED_S seconds.
    """
    judging = asyncio.create_task(runner.run(number)) if runner is not None else None
    has_ended = False
    unattended_from_s: float | None = None
    try:
        while True:
            if judging is not None and judging.done():
                judging.result()
            try:
                async with store.reading() as connection:
                    found = await one_comparison(connection, number)
                    is_attended = judging is not None or await is_one_judged(connection)
            except StoreBusyError:  # the service has much to do; the next look may succeed
                await asyncio.sleep(POLL_S)
                continue
            if found is None:
                raise unknown(number)
            if found.status not in UNFINISHED:
                has_ended = True
                return await read(store, number)
            now_s = time.monotonic()
            unattended_from_s = None if is_attended else unattended_from_s or now_s
            if unattended_from_s is not None and now_s - unattended_from_s > UNATTENDED_S:
                raise await _unattended(store, number)
            show(found)
            await asyncio.sleep(POLL_S)
    finally:
        if judging is not None:
            judging.cancel()
            await asyncio.wait([judging])
            if not has_ended:
                await _cancel(store, number)


async def _unattended(store: Store, number: int) -> ConnectionFailedError:
    """Return the error for a comparison that nobody judges."""
    error = ConnectionFailedError(
        f"No service judges samples: comparison {number} waits. Start vedette cloud serve (or --role analysis), "
        f"then see vedette cloud compare show {number}; or end it: vedette cloud compare cancel {number}."
    )
    error.facts = {"comparison": (await read(store, number)).as_json()}
    return error


async def _cancel(store: Store, number: int) -> None:
    """Cancel a comparison; a failure of the store is printed, not raised."""
    try:
        with contextlib.suppress(BundleError):  # it has ended meanwhile
            await cancel(store, number, actor=store.actor, now_s=time.time())
    except StorageError as error:
        print(
            f"vedette: comparison {number} is not cancelled: {error} Next: vedette cloud compare cancel {number}",
            file=sys.stderr,
        )


def failure_of(result: ComparisonResult) -> VedetteError | None:
    """Return the error of a comparison that did not complete; None for one that did."""
    comparison = result.comparison
    if comparison.status is ComparisonStatus.COMPLETED:
        return None
    text = f"Comparison {comparison.number} is {comparison.status}. {comparison.reason}".strip()
    error = DataError(text) if comparison.reason == NO_SAMPLES else BundleError(text)
    error.facts = {"comparison": result.as_json()}
    return error
