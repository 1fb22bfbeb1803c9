"""Connection settings of an MQTT broker, for sources and alarm sinks."""

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from shared.settings import Settings


class BrokerSettings(Settings):
    """Address and credentials of a broker."""

    url: str = Field(
        pattern=r"^mqtts?://(?:[^/@\s]+@)?[^/@\s]+/?$",
        title="Address",
        description="mqtt://broker:1883 or, encrypted, mqtts://user:secret@broker:8883",
    )
    password_file: Path | None = Field(
        default=None, title="Password", description="file whose first line is the password, instead of the address"
    )
    ca: Path | None = Field(default=None, title="CA", description="PEM that signs the broker; default the system's")
    certificate: Path | None = Field(default=None, title="Certificate", description="PEM, where the broker asks for it")
    key: Path | None = Field(default=None, title="Key", description="PEM of the certificate's private key")
    client_id: str = Field(
        default="", title="Client", description="unique at the broker; default vedette-, host name and id"
    )
    protocol: Literal["5", "3.1.1"] = Field(default="5", title="Protocol", description="version of MQTT")
    qos: Literal[0, 1, 2] = Field(default=1, title="QoS", description="0: at most once, 1: at least once, 2: once")
    keepalive_s: int = Field(
        default=30, ge=5, le=3600, title="Keep-alive", description="seconds without traffic until a ping"
    )
    reconnect_max_s: float = Field(
        default=30.0, ge=1, title="Longest wait", description="seconds between two attempts; the first comes after 1"
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        return check_address(value)

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> Self:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key: set both, or neither")
        return self


def check_address(value: str) -> str:
    """Check that an address has a host and a valid port. Raises ValueError, without secrets in its text."""
    try:
        address = urlsplit(value)
        has_host = bool(address.hostname) and (address.port is None or address.port > 0)
    except ValueError:
        has_host = False
    if not has_host:
        raise ValueError("write it as scheme://user:secret@host:port; in a secret, / ? # @ are %2F %3F %23 %40")
    if address.scheme.startswith("mqtt") and (address.query or address.fragment):
        raise ValueError("an MQTT address has no ? and no #; in a secret they are %3F and %23")
    return value
