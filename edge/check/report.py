"""Findings of checks, as lines, as JSON and as an exit code."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.errors import VedetteError

MARKS = {"ok": "ok", "warning": "!", "error": "FAIL"}


class Level(StrEnum):
    """Consequence of a finding for the start of the agent."""

    OK = "ok"
    WARNING = "warning"  # the agent starts, and waits or goes on without it
    ERROR = "error"  # it can never work as configured


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    `name`: subject of the check, such as "source press: columns". `text`: the result, with the next step unless all is
    well. `problem`: the error of a failed check.
    """

    name: str
    level: Level
    text: str
    problem: VedetteError | None = None


def ok(name: str, text: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(name, Level.OK, text)


def warning(name: str, text: str) -> Finding:
    """Return a finding that does not keep the agent from starting."""
    return Finding(name, Level.WARNING, text)


def error(name: str, problem: VedetteError) -> Finding:
    """Return the finding of a problem that can never work."""
    return Finding(name, Level.ERROR, str(problem), problem)


def settings_finding(problem: VedetteError) -> Finding:
    """Return the finding of settings that cannot be loaded."""
    return error("settings", problem)


def found(name: str, check: Callable[[], str]) -> Finding:
    """Return the finding of a check that returns a text, or raises a VedetteError."""
    try:
        return ok(name, check())
    except VedetteError as problem:
        return error(name, problem)


def exit_code(findings: Sequence[Finding]) -> int:
    """Return the exit code of the first error, or 0."""
    return next((finding.problem.exit_code for finding in findings if finding.problem is not None), 0)


def finding_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield a line for each finding, and one that sums them up."""
    width = max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        yield f"{MARKS[finding.level]:<5}{finding.name:<{width}}  {finding.text}"
    errors, warnings = (sum(one.level is level for one in findings) for level in (Level.ERROR, Level.WARNING))
    if errors:
        yield f"{errors} of {len(findings)} checks failed: correct them before vedette edge run."
    else:
        noun = "1 check is a warning" if warnings == 1 else f"{warnings} checks are warnings"
        yield f"The agent can start; {noun} (!)." if warnings else "All is well."


def findings_json(findings: Sequence[Finding]) -> str:
    """Return the findings as a JSON object."""
    return json.dumps(
        {
            "ok": exit_code(findings) == 0,
            "exit_code": exit_code(findings),
            "checks": [{"name": one.name, "level": one.level.value, "text": one.text} for one in findings],
        },
        indent=2,
    )
