"""Checks before an agent starts: `vedette edge check`, and those of sources at the start of `vedette edge run`."""

from edge.check.report import Finding, Level, exit_code, finding_lines, findings_json, settings_finding
from edge.check.run import check, check_sources

__all__ = [
    "Finding",
    "Level",
    "check",
    "check_sources",
    "exit_code",
    "finding_lines",
    "findings_json",
    "settings_finding",
]
