"""Settings that a group of devices gets from the service in place of the values in `edge.toml`.

A device sends the values in force with each heartbeat, and the service answers with those of the device's group.
"""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import SettingsError
from vedette.v1 import fleet_pb2


class GroupSettings(BaseModel):
    """Settings of a group; None leaves the value of `edge.toml`. 0 as a budget means no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    false_alarms_per_day: float | None = Field(
        default=None, ge=0, le=1e6, description="local alarms that a source may raise in a day of normal data"
    )
    audit_share: float | None = Field(
        default=None, ge=0, le=1, description="share of accepted samples that are sent anyway, at random"
    )
    max_samples_per_s: float | None = Field(
        default=None, ge=0, le=1e6, description="samples a second over all sources of a device; 0: no limit"
    )
    max_bytes_per_s: float | None = Field(
        default=None, ge=0, le=1e12, description="bytes a second over all sources of a device; 0: no limit"
    )
    max_miss_rate: float | None = Field(
        default=None,
        ge=0,
        le=0.5,
        description="share of anomalies that may stay among the accepted samples: sets the forward threshold; 0: off",
    )

    @classmethod
    def checked(cls, values: dict[str, Any]) -> Self:
        """Return the settings of these values; raises SettingsError with each key and the reason."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            reasons = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
            raise SettingsError("; ".join(reasons) + ".") from None

    @classmethod
    def from_message(cls, message: fleet_pb2.GroupSettings) -> Self:
        """Return the settings in a message of the wire; raises SettingsError for values out of range."""
        return cls.checked({name: getattr(message, name) for name in cls.model_fields if message.HasField(name)})

    def to_message(self) -> fleet_pb2.GroupSettings:
        """Return the message of the wire."""
        return fleet_pb2.GroupSettings(**self.given())

    def given(self) -> dict[str, float]:
        """Return the values that are not None, by name."""
        return self.model_dump(exclude_none=True)

    def words(self) -> str:
        """Return the given values as text, such as "audit_share = 0.02"; "as in edge.toml" for none."""
        return ", ".join(f"{name} = {value:g}" for name, value in self.given().items()) or "as in edge.toml"
