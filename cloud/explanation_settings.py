"""Settings of explanations: section `[explanations]` of `cloud.toml`."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from shared.addresses import Address
from shared.settings import Settings

Description = Annotated[str, StringConstraints(min_length=1, max_length=4000)]


def _check_endpoint(text: str) -> str:
    if not text:
        return text
    url = urlsplit(text)
    is_local = url.scheme == "http" and bool(url.hostname) and Address(url.hostname or "", 0).is_loopback
    if not (url.scheme == "https" and url.hostname) and not is_local:
        raise ValueError("write https://HOST/v1, or http://127.0.0.1:PORT/v1 for a model on this machine")
    if "@" in url.netloc or url.query or url.fragment:
        raise ValueError("leave out credentials, query and fragment: a key is read from api_key_file")
    return text.rstrip("/")


class ExplanationSettings(Settings):
    """Settings of the text about a verdict, and of links that share one."""

    endpoint: Annotated[str, AfterValidator(_check_endpoint)] = Field(
        default="",
        title="Endpoint",
        description="base URL of an OpenAI-compatible text model, https or loopback; empty: texts by template alone",
    )
    model: str = Field(default="", max_length=200, title="Model", description="name of the model at the endpoint")
    api_key_file: Path | None = Field(
        default=None, title="API key", description="file with the endpoint's key; empty: none is sent"
    )
    timeout_s: float = Field(
        default=10.0, gt=0, le=60, title="Time-out", description="seconds in which the endpoint has to answer"
    )
    answer_bytes: int = Field(
        default=65_536, ge=1024, le=2**20, title="Answer", description="largest answer of the endpoint in bytes"
    )
    normal: dict[str, Description] = Field(
        default={},
        title="Normal",
        description="text about the normal state of each site, given to the endpoint beside the facts",
    )
    share_days: float = Field(
        default=7.0,
        ge=0,
        le=365,
        title="Share links",
        description="longest time in days that a link to a verdict without an account is valid; 0: no such links",
    )

    @model_validator(mode="after")
    def _names_its_model(self) -> Self:
        if self.endpoint and not self.model:
            raise ValueError("endpoint: set model, too")
        return self
