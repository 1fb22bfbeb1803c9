"""Result of one check of `vedette cloud doctor`."""

from dataclasses import dataclass

OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one check: `state` is ok, warning or failed."""

    name: str
    state: str
    detail: str
