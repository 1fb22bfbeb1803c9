"""Place of verdicts in the list, and the filter of the list."""

import math
from dataclasses import dataclass
from typing import Self

from cloud.store.labels import Label
from shared.errors import DataError
from shared.modality import Modality
from shared.samples import Decision, Route


@dataclass(frozen=True, slots=True)
class VerdictKey:
    """Position of one verdict in the list."""

    judged_at_s: float
    number: int

    def __str__(self) -> str:
        return f"{self.judged_at_s!r}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that `str` wrote; raises DataError for any other text."""
        seconds, _, number = text.partition(":")
        try:
            key = cls(float(seconds), int(number))
        except ValueError:
            key = None
        if key is None or not math.isfinite(key.judged_at_s) or not 0 <= key.number < 2**63:
            raise DataError(f"{text[:60]!r} is not a page key: use 'older' or 'newer' of an earlier answer.")
        return key


@dataclass(frozen=True, slots=True)
class VerdictFilter:
    """Filter of the list; None, "" and () do not restrict. `label` is the newest one of the sample.

    `sites` are those of the devices.
    `text` is the beginning of an origin or of a source id, in any case; after a "*" it may be anywhere in them.
    """

    device_id: str = ""
    modality: Modality | None = None
    route: Route | None = None
    decision: Decision | None = None
    text: str = ""
    since_s: float | None = None
    until_s: float | None = None
    label: Label | None = None
    sites: tuple[str, ...] = ()
