"""Checks before an agent starts: `vedette edge check`, and those without network at the start of `vedette edge run`."""

from edge.check.report import Finding, Level, exit_code, finding_lines, findings_json, settings_finding
from edge.check.run import check, check_start

__all__ = [
    "Finding",
    "Level",
    "check",
    "check_start",
    "exit_code",
    "finding_lines",
    "findings_json",
    "settings_finding",
]
