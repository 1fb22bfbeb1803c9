"""Reading of one verdict for the detail view."""

import asyncio
import uuid
from collections.abc import Collection
from functools import partial
from typing import Any

from cloud.console.why.detail import detail_view
from cloud.evidence.bundle_facts import BundleShelf
from cloud.evidence.facts import facts_of, paragraph_of
from cloud.evidence.pictures import picture_png
from cloud.evidence.reading import Evidence, expected_picture_of, read_evidence
from cloud.evidence.writer import TextWriter
from cloud.store import Store
from cloud.store.queries import judged_sample
from cloud.store.sites import site_of_sample

CONCURRENT_READINGS = 2  # leaves cores to the analysis
WAITING = "There is no verdict on this sample yet. It appears here automatically."


class VerdictReader:
    """Reader of verdicts in full, few at a time."""

    def __init__(self, store: Store, shelf: BundleShelf, writer: TextWriter | None = None) -> None:
        self._store, self._shelf, self._writer = store, shelf, writer
        self._turns = asyncio.Semaphore(CONCURRENT_READINGS)

    async def evidence(
        self, sample_id: uuid.UUID, sites: Collection[str] = (), *, compares: bool = True
    ) -> Evidence | str:
        """Return the evidence of a verdict, or the reason why there is none; raises StorageError.

        With `sites` a sample of another site is unknown. Without `compares` there are no normal pictures.
        """
        async with self._turns:
            is_hidden = bool(sites) and not await self._is_of(sample_id, sites)
            read = partial(read_evidence, self._store, self._shelf, sample_id, compares=compares)
            found = False if is_hidden else await read()
        if isinstance(found, Evidence):
            return found
        return WAITING if found else f"There is no sample {sample_id}; it may have expired."

    async def detail(
        self, sample_id: uuid.UUID, sites: Collection[str] = (), *, compares: bool = True
    ) -> tuple[dict[str, Any] | None, str]:
        """Return the view of one verdict and "", or None and the reason; raises StorageError.

        With `sites` a sample of another site is unknown. Without `compares` there are no normal pictures.
        """
        evidence = await self.evidence(sample_id, sites, compares=compares)
        if isinstance(evidence, str):
            return None, evidence
        return await asyncio.to_thread(detail_view, evidence), ""

    @property
    def writes_texts(self) -> bool:
        """Whether a text model may write about a verdict."""
        return self._writer is not None and self._writer.is_on

    async def text(self, sample_id: uuid.UUID) -> dict[str, Any] | None:
        """Return the text of a verdict by the text model, or by template with the reason; None for no verdict."""
        evidence = await self.evidence(sample_id, compares=False)
        if isinstance(evidence, str):
            return None
        facts, problem = await asyncio.to_thread(facts_of, evidence), ""
        if self._writer is not None and self._writer.is_on:
            decision = evidence.record.decision.value
            written = await self._writer.write(sample_id, facts, decision, evidence.site)
            if written.text:
                return {"paragraph": written.text, "model": self._writer.model, "text_problem": ""}
            problem = written.problem
        return {"paragraph": paragraph_of(facts), "model": "", "text_problem": problem}

    async def expected_png(self, sample_id: uuid.UUID) -> bytes | None:
        """Return the expected look of a sample as PNG; None where there is none."""
        evidence = await self.evidence(sample_id)
        if isinstance(evidence, str):
            return None
        async with self._turns:
            picture = await asyncio.to_thread(expected_picture_of, evidence)
        return picture_png(picture) if picture is not None else None

    async def bundle_picture(self, sample_id: uuid.UUID, number: int) -> bytes | None:
        """Return a normal picture as PNG of the bundle that judged a sample, the golden one is 0; None without it."""
        async with self._store.reading() as connection:
            sample = await judged_sample(connection, sample_id)
        if sample is None:
            return None
        facts, _ = await self._shelf.facts(sample.record.bundle_id or sample.record.edge_bundle_id)
        return facts.pictures[number] if facts is not None and 0 <= number < len(facts.pictures) else None

    async def _is_of(self, sample_id: uuid.UUID, sites: Collection[str]) -> bool:
        async with self._store.reading() as connection:
            return await site_of_sample(connection, sample_id) in sites
