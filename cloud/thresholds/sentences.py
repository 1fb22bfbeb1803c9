"""Sentences of a forecast: how far its figures can be trusted, with the figure and the next step."""

from dataclasses import dataclass

from cloud.thresholds.figures import Trust, WeekFigures
from cloud.thresholds.week import MAX_DEVICES, MAX_SOURCES, GroupWeek

CLEAR_AUDITS = 100  # a week with 100 of them gives an interval of about a fifth to each side


@dataclass(frozen=True, slots=True)
class Doubts:
    """Limits of the trust in a forecast.

    `is_sent`: every sample that would raise an alarm was sent. `audits` of all samples; `audits_beyond` lie between the
    coverage and the proposed level. `audit_share` is the largest in force. `is_budgeted`: a device has an upload
    budget, which may hold suspicious samples back.
    """

    is_sent: bool
    has_rates: bool
    audits: int
    audits_beyond: int
    audit_share: float
    needed_audits: int
    is_budgeted: bool


def sentences(week: GroupWeek, figures: WeekFigures, doubts: Doubts, trust: Trust, upload_trust: Trust) -> list[str]:
    """Return what the page says beside the figures, the trust in the alarms first."""
    said = [_of_alarms(figures, doubts, trust, len(week.devices))]
    if trust is not Trust.UNKNOWN and doubts.is_budgeted:
        said.append(
            "Devices of this group have an upload budget. Samples that it held back are not here, so the counts are "
            "lower bounds."
        )
    if upload_trust is Trust.UNKNOWN:
        said.append(
            "It cannot be said what a larger upload would bring, because the present budget held samples back: set it "
            "for a day, and look again."
        )
    if week.days < 1.0:
        said.append(f"The figures cover {24 * week.days:.0f} hours only: look again when a whole week is there.")
    if week.items_total > len(week.items):
        said.append(f"Items are counted by the newest {len(week.items):,} of {week.items_total:,}.")
    if week.left_out:
        said.append(
            f"{_devices(week.left_out)} of this group {'is' if week.left_out == 1 else 'are'} left out, so the counts "
            f"are lower bounds: the forecast reads at most {MAX_DEVICES:,} devices and {MAX_SOURCES:,} sources, "
            "devices with few sources first. Divide the group to see all."
        )
    return said


def _of_alarms(figures: WeekFigures, doubts: Doubts, trust: Trust, devices: int) -> str:
    if trust is Trust.EXACT:
        return (
            "Exact: every sample that would raise an alarm with this setting was sent, and "
            f"{_number(figures.alarms_per_day)} a day were counted."
        )
    if trust is Trust.ESTIMATE and doubts.is_sent:
        return (
            f"Estimate: {_number(figures.alarms_per_day)} alarms a day were counted on {_devices(devices)}, which sent "
            "every sample that would raise an alarm with this setting. The other devices of the group do not count."
        )
    if trust is Trust.ESTIMATE:
        return (
            "Estimate: this setting also raises alarms for samples that stayed on their devices. "
            f"{doubts.audits_beyond} audits among them give {_number(figures.alarms_per_day)} alarms a day, with 95 % "
            f"between {_number(figures.alarms_low)} and {_number(figures.alarms_high)}."
        )
    if not doubts.has_rates:
        return (
            "It cannot be said yet: no device of this group has two heartbeats in the last days, so the rate of its "
            "sources is unknown. Look again an hour after the devices have started."
        )
    audits = f"only {doubts.audits} audit{'s' if doubts.audits != 1 else ''}"
    return (
        "It cannot be said: this setting also raises alarms for samples that stayed on their devices, and "
        f"{audits} of them {'were' if doubts.audits != 1 else 'was'} sent, of at least {doubts.needed_audits} needed. "
        f"The figures are lower bounds. Raise the audit share from {_percent(doubts.audit_share)} to "
        f"{_percent(_wanted_share(doubts))}, and look again in a few days."
    )


def _wanted_share(doubts: Doubts) -> float:
    """Return the share that gives CLEAR_AUDITS in the same time, between twice the present one and 1."""
    share = max(doubts.audit_share, 0.001)
    factor = CLEAR_AUDITS / max(doubts.audits, 1)
    return min(1.0, max(2.0 * share, min(share * factor, 0.25)))


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count:,} devices"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _number(value: float) -> str:
    """Return a figure a day with two or three digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"
