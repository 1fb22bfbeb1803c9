"""Sentences and warnings of a judgement. Their bounds are documented in docs/TRAINING.md."""

from cloud.training.judgement.figures import SAMPLES_PER_DAY, CorruptionFigures, Figures

MIN_FOUND_SHARE = 0.3  # of all corrupted copies, forwarded, and found by the fused verdict
MIN_KIND_SHARE = 0.2  # a kind of which less is found is named
MAX_DRIFT = 1.0  # change of a channel's mean, in standard deviations
MAX_FORWARDED_FACTOR = 3.0  # later normals forwarded, over the asked share
MIN_FORWARDED = 5  # of them, so that chance alone is no warning


def sentences(figures: Figures) -> list[str]:
    """Return the judgement in sentences, warnings excluded."""
    return [
        _resolution(figures),
        _rate(figures),
        *_copies(figures),
        *_corruptions(figures),
        _forwarding(figures),
        _drift(figures),
    ]


def warnings_of(figures: Figures) -> list[str]:
    """Return one sentence for each figure beyond its documented bound."""
    resolution, drift = figures.resolution, figures.drift
    found = _copy_warnings(figures)
    if not resolution.is_resolved:
        alarms = resolution.resolved_alarms_per_day
        found.append(
            f"Too few normal samples for {_alarms(resolution.false_alarms_per_day)} a day: give about "
            f"{resolution.more:,} more {figures.unit}, or expect {_alarms(alarms)} a day."
        )
    for by, text in (("forwarded", "A device forwards"), ("fused", "The fused verdict finds")):
        share = figures.found_share(by)
        if share is not None and share < MIN_FOUND_SHARE:
            found.append(
                f"{text} {share:.0%} of the corrupted copies, below {MIN_FOUND_SHARE:.0%}: expect it to miss most "
                "defects. Give more normal samples, or allow more false alarms a day."
            )
    if drift.largest > MAX_DRIFT:
        found.append(
            f"The normal data drifts: {'; '.join(drift.channels)}. Give normal data that covers the whole range, and "
            "train again when the source changes."
        )
    expected = figures.forward_p_value * drift.later
    if drift.later_forwarded >= MIN_FORWARDED and drift.later_forwarded > MAX_FORWARDED_FACTOR * expected:
        found.append(
            f"The last {drift.later} held-out {figures.unit} look unlike the earlier ones: "
            f"the router forwards {drift.later_forwarded} of them, and {expected:.0f} were asked. A device will "
            "forward more than asked."
        )
    return found


def _resolution(figures: Figures) -> str:
    resolution = figures.resolution
    text = f"{resolution.held_out:,} held-out {figures.unit} resolve 1 in {resolution.separate + 1:,}"
    if resolution.separate < resolution.held_out:
        text += f" (they overlap and count as about {resolution.separate:,} separate ones)"
    if resolution.false_alarms_per_day == 0:
        return f"{text}; no false alarms are allowed, so the device raises no alarms of its own."
    asked = f"{_alarms(resolution.false_alarms_per_day)} a day at {_pace(resolution.samples_per_day, figures.unit)}"
    if resolution.is_resolved:
        return f"{text}; {asked} is 1 in {1 / resolution.rate:,.0f}, which they resolve."
    return (
        f"{text}; {asked} needs {resolution.needed:,}: give about {resolution.more:,} more, or expect "
        f"{_alarms(resolution.resolved_alarms_per_day)} a day. Rarer p-values are extrapolated."
    )


def _rate(figures: Figures) -> str:
    resolution = figures.resolution
    pace = _pace(resolution.samples_per_day, figures.unit)
    if resolution.rate_origin:
        return f"The rate of {pace} is from {resolution.rate_origin}."
    return f"The rate of {pace} is an assumption: set yours with --samples-per-day."


def _copies(figures: Figures) -> list[str]:
    copies, resolution = figures.copies, figures.resolution
    if not copies.normals:
        return []
    total = figures.train + resolution.held_out
    return [
        f"Exact copies: {copies.normals:,} of {total:,} normal {figures.unit} repeat an earlier one, and "
        f"{copies.held_out:,} of {resolution.held_out:,} held-out ones equal one to train on."
    ]


def _copy_warnings(figures: Figures) -> list[str]:
    copies, held_out, total = figures.copies, figures.resolution.held_out, figures.train + figures.resolution.held_out
    remedy = "Remove copies; if the source repeats its values, raise judgement.max_copied_share."
    if copies.held_out > figures.max_copied_share * held_out:
        return [
            f"{copies.held_out:,} of {held_out:,} held-out {figures.unit} are copies of training {figures.unit}: the "
            f"figures of this judgement are too good. {remedy}"
        ]
    if copies.normals > figures.max_copied_share * total:
        return [
            f"{copies.normals:,} of {total:,} normal {figures.unit} are copies of others, so there are "
            f"{total - copies.normals:,} different ones: they resolve less than the figures say. {remedy}"
        ]
    return []


def _corruptions(figures: Figures) -> list[str]:
    if not figures.corruptions:
        return ["No corrupted copy differs from its original, so detection was not measured."]
    copies = sum(kind.copies for kind in figures.corruptions.values())
    shares = {by: figures.found_share(by) or 0.0 for by in CorruptionFigures.model_fields}
    text = (
        f"Of {copies} corrupted copies of held-out {figures.unit}, the screener finds {shares['screener']:.0%} and the "
        f"fused verdict {shares['fused']:.0%} at this rate. The device forwards {shares['forwarded']:.0%}, and the "
        f"service's verdict at {figures.verdict_rate:g} finds {shares['judged_anomalous']:.0%}."
    )
    if figures.unfinished:
        text += " The time limit ended this measurement early."
    kinds = ", ".join(f"{name} {_share(kind)}" for name, kind in figures.corruptions.items())
    missed = [name for name, kind in figures.corruptions.items() if kind.fused < MIN_KIND_SHARE * kind.copies]
    lines = [text, f"Found by the fused verdict, by kind: {kinds}."]
    return [*lines, f"It mostly misses: {', '.join(missed)}."] if missed else lines


def _share(kind: CorruptionFigures) -> str:
    return f"{kind.fused} of {kind.copies}"


def _forwarding(figures: Figures) -> str:
    rule = f"p-values up to {figures.forward_p_value:g}, and {figures.audit_share:.0%} of the rest as audits"
    text = f"Expect a device to forward about {figures.expected_forwarded:.0%} of normal {figures.unit}"
    promised = figures.forward_p_value + figures.audit_share * (1 - figures.forward_p_value)
    if f"{figures.expected_forwarded:.0%}" == f"{promised:.0%}":
        return f"{text}: {rule}."
    return f"{text}, as of the last third of the held-out ones. Without drift it is {promised:.0%}: {rule}."


def _drift(figures: Figures) -> str:
    if figures.drift.channels:
        return f"From the first to the last part of the normal data: {'; '.join(figures.drift.channels)}."
    return "No drift from the first to the last part of the normal data."


def _alarms(count: float) -> str:
    rounded = f"{count:,.0f}" if count >= 10 else f"{count:.2g}"
    return f"{rounded} false alarm{'' if rounded == '1' else 's'}"


def _pace(per_day: float, unit: str) -> str:
    one = unit.removesuffix("s")
    if per_day == SAMPLES_PER_DAY:
        return f"1 {one} a minute"
    if per_day >= 86_400:
        return f"{per_day / 86_400:.3g} {unit} a second"
    return f"{per_day:,.0f} {unit} a day" if per_day >= 10 else f"{per_day:.3g} {unit} a day"
