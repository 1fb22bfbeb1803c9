"""Figures of a forecast, as the HTTP API, the page and the history of a group have them."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Trust(StrEnum):
    """How far a figure can be trusted."""

    EXACT = "exact"
    """Every sample that it counts was sent."""
    ESTIMATE = "estimate"
    """Audits stand for samples that were not sent, or devices were left out."""
    UNKNOWN = "unknown"
    """The sent samples do not show it; figures are lower bounds."""


class WeekFigures(BaseModel):
    """Figures of the last days under one pair of settings.

    `false_alarms_per_day` and `max_samples_per_s` are None where the devices differ; 0 as a budget means no limit. The
    bounds are those of a 95 % interval, equal to the figure where it is exact. Among labelled samples, `reals_alarmed`
    raise an alarm, `reals_lost` raise none any more, `reals_gained` raise one in addition; `reals_at_risk` may stay on
    their device, because its budget was used up on their day.
    """

    model_config = ConfigDict(frozen=True)

    false_alarms_per_day: float | None
    max_samples_per_s: float | None
    alarms_per_day: float
    alarms_low: float
    alarms_high: float
    items_per_day: float
    alarm_items_per_day: float
    samples_per_day: float
    bytes_per_day: float
    reals_alarmed: int
    reals_lost: int
    reals_gained: int
    reals_at_risk: int
    false_alarms_gone: int
    false_alarms_added: int


class AlarmCurve(BaseModel):
    """Figures a day against the setting `false_alarms_per_day`, all of the same length."""

    model_config = ConfigDict(frozen=True)

    settings: list[float]
    alarms: list[float]
    low: list[float]
    high: list[float]
    alarm_items: list[float]
    items: list[float]
    reals_alarmed: list[int]
    false_alarms: list[int]


class UploadCurve(BaseModel):
    """Figures a day against the setting `max_samples_per_s` of each device, all of the same length; the last is 0."""

    model_config = ConfigDict(frozen=True)

    settings: list[float]
    samples: list[float]
    bytes: list[float]
    items: list[float]
    reals_at_risk: list[int]


class Mark(BaseModel):
    """Labelled sample on the curve: it raises an alarm from `setting` false alarms a day on."""

    model_config = ConfigDict(frozen=True)

    sample_id: str
    setting: float
    is_real: bool


class Forecast(BaseModel):
    """Last days of a group replayed under its present and the proposed settings.

    `days` are covered by the figures, of `devices` that sent samples. The figures are exact up to `exact_up_to` false
    alarms a day. `sentences` say how far the figures can be trusted, with the figure and the next step.
    """

    model_config = ConfigDict(frozen=True)

    days: float
    devices: int
    audits: int
    reals: int
    false_alarms: int
    present: WeekFigures
    proposed: WeekFigures
    trust: Trust
    upload_trust: Trust
    exact_up_to: float
    sentences: list[str]
    alarm_curve: AlarmCurve
    upload_curve: UploadCurve
    marks: list[Mark]


class Expected(BaseModel):
    """Forecast of a change, for the history."""

    model_config = ConfigDict(frozen=True)

    items_per_day: float
    alarm_items_per_day: float
    alarms_per_day: float
    alarms_low: float
    alarms_high: float
    bytes_per_day: float
    trust: Trust


class Came(BaseModel):
    """Items in the `hours` after a change, a day at most; figures a day, None if the next change came at once."""

    model_config = ConfigDict(frozen=True)

    hours: float
    items_per_day: float | None
    alarm_items_per_day: float | None
