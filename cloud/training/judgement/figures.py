"""Figures of a judgement, as the manifest stores them."""

import math

from pydantic import BaseModel, ConfigDict, Field

SAMPLES_PER_DAY = 1440.0  # one a minute, where no rate is given
MAX_COPIED_SHARE = 0.1  # p-values are then too small by about a tenth


class _Figures(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HeldOutResolution(_Figures):
    """Resolution of the held-out samples, and the false alarms that were asked for."""

    held_out: int
    separate: int = Field(description="held-out samples that count as separate: windows that share readings do not")
    held_out_share: float
    false_alarms_per_day: float
    samples_per_day: float
    rate_origin: str = Field(default="", description="where samples_per_day comes from; empty: it is assumed")

    @property
    def rarest_p_value(self) -> float:
        """Smallest p-value that this many separate held-out samples resolve without a fitted tail: 1 / (n + 1)."""
        return 1.0 / (self.separate + 1)

    @property
    def rate(self) -> float:
        """False-alarm rate per sample that was asked for."""
        return min(1.0, self.false_alarms_per_day / self.samples_per_day)

    @property
    def is_resolved(self) -> bool:
        """Whether the asked rate is at least the rarest p-value; a rate of 0 asks for no alarms and needs none."""
        return self.false_alarms_per_day == 0 or self.rate >= self.rarest_p_value * (1 - 1e-9)

    @property
    def needed(self) -> int:
        """Number of separate held-out samples that would resolve the asked rate."""
        return 0 if self.false_alarms_per_day == 0 else max(0, math.ceil(1.0 / self.rate - 1e-9) - 1)

    @property
    def more(self) -> int:
        """Number of further normal samples to give, of which `held_out_share` is held out."""
        overlap = self.held_out / max(self.separate, 1)
        return max(0, math.ceil((self.needed - self.separate) * overlap / self.held_out_share))

    @property
    def resolved_alarms_per_day(self) -> float:
        """False alarms a day at the rarest p-value that is resolved."""
        return self.samples_per_day * self.rarest_p_value


class CorruptionFigures(_Figures):
    """Number of corrupted copies of one kind, and those found at the asked rate or forwarded."""

    copies: int
    screener: int = Field(description="copies that the device's screener finds at the asked rate")
    fused: int = Field(description="copies that the fused verdict finds at the asked rate")
    judged_anomalous: int = Field(description="copies that the service judges anomalous at its own false-alarm rate")
    forwarded: int = Field(description="copies that the device forwards")


class Copies(_Figures):
    """Number of exact copies among the normal samples. Windows and clips in which nothing changes do not count."""

    held_out: int = Field(default=0, description="held-out samples that equal a training sample")
    normals: int = Field(default=0, description="normal samples that equal an earlier one, held-out ones included")


class Drift(_Figures):
    """Difference between the first and the last part of the normal data."""

    channels: tuple[str, ...] = Field(default=(), description="changed channels, with both means")
    largest: float = Field(default=0.0, description="largest change of a mean, in standard deviations")
    later: int = Field(default=0, description="held-out samples in the last part")
    later_forwarded: int = Field(default=0, description="those that a calibration on the others forwards")


class Figures(_Figures):
    """All figures of a judgement."""

    unit: str = Field(description="plural of the word for one sample, such as images")
    train: int
    resolution: HeldOutResolution
    corruptions: dict[str, CorruptionFigures]
    forward_p_value: float
    verdict_rate: float = Field(description="false-alarm rate of the service's verdict")
    audit_share: float
    drift: Drift
    copies: Copies = Copies()
    max_copied_share: float = Field(default=MAX_COPIED_SHARE, description="share of copies above which is a warning")
    unfinished: bool = Field(default=False, description="whether the time limit ended the corruptions early")

    def found_share(self, by: str) -> float | None:
        """Return the share of all corrupted copies found of `by`, a field of `CorruptionFigures`; None without."""
        copies = sum(kind.copies for kind in self.corruptions.values())
        return sum(getattr(kind, by) for kind in self.corruptions.values()) / copies if copies else None

    @property
    def expected_forwarded(self) -> float:
        """Expected share of normal samples that a device forwards, audits included."""
        forwarded = self.forward_p_value
        if self.drift.later:
            forwarded = max(forwarded, self.drift.later_forwarded / self.drift.later)
        return forwarded + (1.0 - forwarded) * self.audit_share
