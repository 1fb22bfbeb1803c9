"""Forecast of settings for a group: figures under the present and the proposed ones, curves, and their trust."""

import numpy as np
from numpy.typing import NDArray

from cloud.thresholds.cells import BUDGETS, BUDGETS_PER_S, BYTES, SAMPLES
from cloud.thresholds.figures import AlarmCurve, Forecast, Trust, UploadCurve, WeekFigures
from cloud.thresholds.replay import NO_LIMIT, Replay, Setting
from cloud.thresholds.sentences import Doubts, sentences
from cloud.thresholds.week import GroupWeek
from shared.group_settings import GroupSettings

ALARM_GRID: NDArray[np.float64] = 10.0 ** (np.arange(-20, 41) / 10.0)
"""(settings,) false alarms a day, ten a decade from 0.01 to 10,000."""
MIN_AUDITS = 20  # before they say anything about what was not sent
MOST_UNAUDITED = 0.5  # share of the accepted samples whose devices have no audit


def forecast_of(week: GroupWeek, settings: GroupSettings) -> Forecast:
    """Return the forecast of settings for a group; those that are None stay as they are in force."""
    replay = Replay(week)
    present, proposed = replay.present(), replay.proposed(settings)
    before, after = _figures(replay, present, present), _figures(replay, proposed, present)
    trust, doubts = _trust(replay, proposed)
    limits = present.budgets != NO_LIMIT
    is_larger = bool((limits & (proposed.budgets > present.budgets)).any())
    upload_trust = Trust.UNKNOWN if is_larger else Trust.ESTIMATE if week.left_out else Trust.EXACT
    reals = sum(each.is_real for each in week.labelled)
    return Forecast(
        days=replay.days,
        devices=len({source.device for source in week.sources}),
        audits=replay.audits,
        reals=reals,
        false_alarms=len(week.labelled) - reals,
        present=before,
        proposed=after,
        trust=trust,
        upload_trust=upload_trust,
        exact_up_to=replay.exact_up_to(),
        sentences=sentences(week, after, doubts, trust, upload_trust),
        alarm_curve=_alarm_curve(replay, proposed),
        upload_curve=_upload_curve(replay, proposed),
        marks=replay.marks(),
    )


def _trust(replay: Replay, setting: Setting) -> tuple[Trust, Doubts]:
    """Return how far the alarms of a setting can be trusted."""
    alarms = replay.alarms(replay.cuts(setting.false_alarms[None]))
    devices = replay.week.devices
    doubts = Doubts(
        is_sent=not alarms.is_beyond[0],
        has_rates=replay.has_rates,
        audits=replay.audits,
        audits_beyond=int(alarms.audits[0]),
        audit_share=max((device.setting("audit_share", 0.01) for device in devices), default=0.01),
        needed_audits=MIN_AUDITS,
        is_budgeted=any(
            device.setting("max_samples_per_s", 0.0) > 0 or device.setting("max_bytes_per_s", 0.0) > 0
            for device in devices
        ),
    )
    if not replay.has_rates:
        return Trust.UNKNOWN, doubts
    if not alarms.is_beyond[0]:
        return (Trust.ESTIMATE if replay.week.left_out else Trust.EXACT), doubts
    is_enough = replay.audits >= MIN_AUDITS and replay.unaudited_share < MOST_UNAUDITED
    return (Trust.ESTIMATE if is_enough else Trust.UNKNOWN), doubts


def _figures(replay: Replay, setting: Setting, present: Setting) -> WeekFigures:
    cuts, budgets = replay.cuts(setting.false_alarms[None]), setting.budgets[None]
    alarms = replay.alarms(cuts)
    low, high = replay.bounds(alarms)
    items, alarm_items = replay.items(cuts, budgets)
    before = replay.label_alarms(replay.cuts(present.false_alarms[None]))[0]
    after = replay.label_alarms(cuts)[0]
    is_real, days = replay.label_is_real, replay.days
    extra = float(alarms.estimated[0])  # alarms are sent
    samples, size = replay.sent(budgets, SAMPLES)[0], replay.sent(budgets, BYTES)[0]
    return WeekFigures(
        false_alarms_per_day=_common(setting.false_alarms),
        max_samples_per_s=_common(setting.samples_per_s),
        alarms_per_day=float(alarms.known[0] + extra) / days,
        alarms_low=float(low[0]) / days,
        alarms_high=float(high[0]) / days,
        items_per_day=float(items[0] + alarms.asking[0]) / days,
        alarm_items_per_day=float(alarm_items[0] + alarms.asking[0]) / days,
        samples_per_day=float(samples + extra) / days,
        bytes_per_day=float(size + extra * size / max(samples, 1)) / days,
        reals_alarmed=int((after & is_real).sum()),
        reals_lost=int((before & ~after & is_real).sum()),
        reals_gained=int((after & ~before & is_real).sum()),
        reals_at_risk=int(replay.at_risk(budgets)[0]),
        false_alarms_gone=int((before & ~after & ~is_real).sum()),
        false_alarms_added=int((after & ~before & ~is_real).sum()),
    )


def _alarm_curve(replay: Replay, setting: Setting) -> AlarmCurve:
    """Return the curve over ALARM_GRID, with the budgets of the setting."""
    count, days = len(replay.week.devices), replay.days
    cuts = replay.cuts(np.repeat(ALARM_GRID[:, None], count, axis=1))
    alarms = replay.alarms(cuts)
    low, high = replay.bounds(alarms)
    items, alarm_items = replay.items(cuts, np.repeat(setting.budgets[None], len(ALARM_GRID), axis=0))
    labelled = replay.label_alarms(cuts)
    return AlarmCurve(
        settings=_rounded(ALARM_GRID),
        alarms=_rounded((alarms.known + alarms.estimated) / days),
        low=_rounded(low / days),
        high=_rounded(high / days),
        alarm_items=_rounded((alarm_items + alarms.asking) / days),
        items=_rounded((items + alarms.asking) / days),
        reals_alarmed=(labelled & replay.label_is_real).sum(axis=1).tolist(),
        false_alarms=(labelled & ~replay.label_is_real).sum(axis=1).tolist(),
    )


def _upload_curve(replay: Replay, setting: Setting) -> UploadCurve:
    """Return the curve over all budgets, the last without a limit, with the alarms of the setting."""
    count, days = len(replay.week.devices), replay.days
    budgets = np.repeat(np.arange(BUDGETS + 1)[:, None], count, axis=1)
    cuts = np.repeat(replay.cuts(setting.false_alarms[None]), BUDGETS + 1, axis=0)
    return UploadCurve(
        settings=_rounded(np.append(BUDGETS_PER_S, 0.0)),
        samples=_rounded(replay.sent(budgets, SAMPLES) / days),
        bytes=_rounded(replay.sent(budgets, BYTES) / days),
        items=_rounded(replay.items(cuts, budgets)[0] / days),
        reals_at_risk=replay.at_risk(budgets).tolist(),
    )


def _common(values: NDArray[np.float64]) -> float | None:
    """Return the value that all have, None where they differ."""
    return float(values[0]) if len(values) and (values == values[0]).all() else None


def _rounded(values: NDArray[np.float64]) -> list[float]:
    """Return values with five significant digits, for the wire."""
    return [float(f"{value:.5g}") for value in values.tolist()]
