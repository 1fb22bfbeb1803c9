"""Settings of alarm sinks: one table `[[alarms]]` of `edge.toml` each, whose `kind` decides its keys."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from edge.settings.sources import SOURCE_ID_PATTERN
from shared.broker_settings import BrokerSettings, check_address
from shared.settings import Settings


class AlarmSinkBase(Settings):
    """Settings of every sink: name, sources and rate."""

    id: str = Field(pattern=SOURCE_ID_PATTERN, title="Name", description="names the sink in logs and in the status")
    sources: tuple[str, ...] = Field(default=(), title="Sources", description="ids of sources; none: all")
    quiet_s: float = Field(
        default=60.0,
        ge=0,
        title="Quiet",
        description="seconds after an alarm in which more of the same source are gathered into one",
    )
    max_per_minute: float = Field(default=10.0, gt=0, le=6000, title="Rate", description="messages a minute at most")
    max_age_s: float = Field(
        default=86400.0, gt=0, title="Age", description="seconds after which an undelivered alarm is dropped"
    )


class FileSinkSettings(AlarmSinkBase):
    """A line of JSON for each alarm."""

    kind: Literal["file"] = Field(title="Kind", description="a file, a line of JSON each")
    path: Path = Field(title="Path", description="the file to append to")
    max_bytes: int = Field(
        default=10 * 2**20, ge=4096, title="Size", description="bytes after which the file is put away as path.1"
    )


class WebhookSettings(AlarmSinkBase):
    """A signed HTTP request for each alarm."""

    kind: Literal["webhook"] = Field(title="Kind", description="an HTTP POST, signed")
    url: str = Field(pattern=r"^https?://[^\s/]+", title="Address", description="http:// or https://")
    secret_file: Path = Field(title="Secret", description="file with the secret of the signature, 16 bytes or more")
    ca: Path | None = Field(default=None, title="CA", description="PEM that signs the server; default the system's")
    timeout_s: float = Field(default=10.0, gt=0, le=120, title="Timeout", description="seconds a request may take")

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if urlsplit(check_address(value)).username is not None:
            raise ValueError(
                "leave user and password out: the address is shown in logs, and the signature proves who sends"
            )
        return value


class MqttSinkSettings(AlarmSinkBase, BrokerSettings):
    """A message to an MQTT broker for each alarm."""

    kind: Literal["mqtt"] = Field(title="Kind", description="a message to an MQTT broker")
    topic: str = Field(
        pattern=r"^[^+#\x00]{1,1000}$", title="Topic", description="where it goes; {source} stands for the source's id"
    )
    timeout_s: float = Field(default=10.0, gt=0, le=120, title="Timeout", description="seconds the broker may take")


AlarmSinkSettings: TypeAlias = Annotated[
    FileSinkSettings | WebhookSettings | MqttSinkSettings, Field(discriminator="kind")
]
