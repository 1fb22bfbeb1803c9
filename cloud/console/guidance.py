"""Texts of empty pages: the reason and the next steps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from cloud.store.fleet_queries import FleetSummary
from cloud.words import count_words

BundleProblems: TypeAlias = Callable[[], Mapping[str, str]]
"""Returns the reasons of the current bundles that do not verify, by bundle id."""

_TOKEN = {
    "text": "On this machine, make a one-time token: ",
    "command": "vedette cloud token DEVICE_ID --config cloud.toml",
}
_ENROL = {
    "text": "On the device, enrol: ",
    "command": "vedette edge enroll --config edge.toml --token TOKEN",
}
_RUN = {"text": "Start the agent: ", "command": "vedette edge run --config edge.toml"}
_PUBLISH = {"text": "Publish a bundle: ", "command": "vedette cloud publish BUNDLE --config cloud.toml"}


def no_device() -> dict[str, Any]:
    """Return the text for a service without devices."""
    return {
        "title": "No device is enrolled yet",
        "lines": ["A device enrols once with a token; its suspicious samples are then listed here."],
        "steps": [_TOKEN, _ENROL, _PUBLISH, _RUN],
    }


def not_ready(problems: Mapping[str, str]) -> dict[str, Any]:
    """Return the text for a service whose current bundles do not all verify; `problems`: reasons by bundle id."""
    return {
        "title": "The service is not ready",
        "lines": [f"Bundle {bundle_id}: {reason}." for bundle_id, reason in sorted(problems.items())],
        "steps": [_PUBLISH],
    }


def no_verdict(summary: FleetSummary) -> dict[str, Any]:
    """Return the text for a fleet without verdicts."""
    screened = summary.counters.samples_screened
    if summary.last_heartbeat_at_s is None:
        return {
            "title": "No device has reported yet",
            "lines": ["Devices are enrolled, but none has sent a heartbeat."],
            "steps": [_PUBLISH, _RUN],
        }
    if summary.pending:
        lines = [f"{count_words(summary.pending)} samples wait for their verdict, which appears here."]
    elif summary.counters.samples_sent:
        sent = f"{count_words(summary.counters.samples_sent)} of {count_words(screened)} screened samples were sent."
        lines = [sent, "There is no verdict on them: they are on their way, wait in spools, or have expired."]
    elif screened:
        lines = [
            f"{count_words(screened)} samples were screened; none was suspicious enough to forward.",
            "This is expected on normal data. Audits, a small random share, appear here later.",
        ]
    else:
        lines = ["Devices report but have screened no sample: see their bundles and warnings under Devices."]
    return {"title": "No verdicts yet", "lines": lines, "steps": []}


def no_item(is_filtered: bool, elsewhere: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Return the text for a list of review items that is empty; `elsewhere`: tabs with the number of items left."""
    lines = [f"{name}: {count_words(count)} left." for name, count in elsewhere]
    if is_filtered:
        lines.insert(0, "No item matches these filters. Clear one, or choose a longer time.")
    elif not lines:
        lines = ["Every item is decided or reviewed. New ones appear here by themselves."]
    return {"title": "Nothing to review here" if lines else "", "lines": lines, "steps": []}


def no_match() -> dict[str, Any]:
    """Return the text for filters that match nothing."""
    return {
        "title": "No verdict matches these filters",
        "lines": ["Clear a filter or choose a longer time. New verdicts that match appear here."],
        "steps": [],
    }


def no_match_yet() -> dict[str, Any]:
    """Return the text for a search that ended before the oldest verdict."""
    return {
        "title": "No match among the verdicts that were searched",
        "lines": ["Choose Older to search on, or restrict the search with a filter."],
        "steps": [],
    }
