"""Severity of review items: which verdicts ask for a person, and how urgently."""

from enum import StrEnum

from shared.samples import Decision, Route

ALARM_P_VALUE = 1e-4
"""Largest fused p-value of an alarm among the review items, by the service's judgement alone.

It is fixed, because it only sorts items into the tabs Alarms and Suspicious. The levels of anomalies and of devices'
alarms are settings: `analysis.false_alarm_rate`, and `false_alarms_per_day` of a group. Items keep their stored
severity, and the forecast of a group's settings counts the items of past weeks by it: after a change, tabs and
forecasts would mix items of both levels.
"""


class Severity(StrEnum):
    """Urgency of a review item, and its tab on the page."""

    ALARM = "alarm"
    SUSPICIOUS = "suspicious"
    UNDECIDED = "undecided"
    MISSED = "missed"


JOINED = (Severity.ALARM, Severity.SUSPICIOUS)
"""Severities that one item can hold: it has the first one if any of its verdicts has it."""


def severity_of(decision: Decision, route: Route, p_value: float | None) -> Severity | None:
    """Return the severity of a verdict, None for one that asks for nobody.

    An anomaly is an alarm if the device raised one, or if it is at least as odd as ALARM_P_VALUE; on a sample that the
    edge had accepted it was missed.
    """
    if decision is Decision.UNDECIDED:
        return Severity.UNDECIDED
    if decision is Decision.NORMAL:
        return None
    if route in (Route.AUDIT, Route.ACCEPT):
        return Severity.MISSED
    is_alarm = route is Route.ALARM or (p_value is not None and p_value <= ALARM_P_VALUE)
    return Severity.ALARM if is_alarm else Severity.SUSPICIOUS
