"""Limits of a rollout's gates, set for each rollout and stored with it."""

import re
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from shared.errors import SettingsError

_TEXT = re.compile(r"(?P<ratio>\d+(\.\d+)?)x\+(?P<slack>\d+(\.\d+)?)%")


class GateLimit(BaseModel):
    """Largest share of the new bundle: `ratio` times the share of the bundle before, plus `slack`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float = Field(ge=0, le=100)
    slack: float = Field(ge=0, le=1)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the limit of a text such as "2x+5%": twice the share before, plus 5 %. Raises SettingsError."""
        found = _TEXT.fullmatch(text.replace(" ", ""))
        ratio, slack = (float(found["ratio"]), float(found["slack"]) / 100) if found else (-1.0, -1.0)
        if not (0 <= ratio <= 100 and 0 <= slack <= 1):
            raise SettingsError(f"{text!r} is not a limit: write 2x+5% for twice the share before plus 5 %.")
        return cls(ratio=ratio, slack=slack)


class RolloutLimits(BaseModel):
    """Limits of all gates of a rollout.

    `max_failed` is a share of a stage's devices. Fewer than `min_devices` devices halt nothing, unless the stage has
    fewer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_failed: float = Field(default=0.05, ge=0, le=1)
    max_unhealthy: GateLimit = GateLimit(ratio=1.0, slack=0.2)
    max_forwarded: GateLimit = GateLimit(ratio=2.0, slack=0.02)
    max_alarmed: GateLimit = GateLimit(ratio=2.0, slack=0.02)
    max_dismissed: GateLimit = GateLimit(ratio=1.5, slack=0.15)
    max_missed: GateLimit = GateLimit(ratio=2.0, slack=0.05)
    min_devices: int = Field(default=2, ge=1, le=1000)


DEFAULT_LIMITS = RolloutLimits()
