"""Route of live views: the newest sample of a device's source."""

import base64
import math
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from cloud.evidence.bundle_facts import BundleFacts, BundleShelf
from cloud.evidence.standing import normal_ranges
from cloud.live_views.desk import MAX_SOURCE_CHARACTERS, LiveView, LiveViewDesk, LiveViewLimitError, LiveViewState
from cloud.moments import rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.routers import api_router
from cloud.store.api_tokens import Scope
from shared.errors import SettingsError
from shared.live_views import ShownSample
from shared.modality import Modality
from shared.samples import Route


class LiveViewBody(BaseModel):
    """Source to look at."""

    model_config = ConfigDict(extra="forbid")

    source_id: Annotated[str, Field(min_length=1, max_length=MAX_SOURCE_CHARACTERS, pattern=r"^[^\x00]+$")]


class LiveViewPicture(BaseModel):
    """Preview of an image, or of the last frame of a clip; `data` is a JPEG file as base64, sizes are in pixels."""

    data: str
    height: int
    width: int
    whole_height: int
    whole_width: int


class LiveViewRange(BaseModel):
    """Range of 98 % of the training readings of a channel."""

    low: float
    high: float


class LiveViewReadings(BaseModel):
    """Readings of a row or window.

    `values`: for each time point (one of a row) a value for each channel, null where it is missing. They have every
    `every`-th time point of the window. `names` and `normal` are empty if the service does not know the bundle.
    """

    names: list[str]
    normal: list[LiveViewRange | None]
    values: list[list[float | None]]
    every: int


class LiveViewSample(BaseModel):
    """Newest screened sample of a source; either `picture` or `readings` is null.

    `route` does not say whether the sample is sent: the budget and the mode of the device decide, too.
    """

    modality: Modality
    captured_at: str
    origin: str
    score: float
    p_value: float
    extrapolated: bool
    route: Route
    bundle_id: str
    artefact: str
    picture: LiveViewPicture | None
    readings: LiveViewReadings | None


class LiveViewItem(BaseModel):
    """Outcome of a live view; `sample` is null unless `state` is "shown", and `words` says why."""

    state: LiveViewState
    words: str
    sample: LiveViewSample | None


def live_view_routes(desk: LiveViewDesk | None, shelf: BundleShelf) -> APIRouter:
    """Return the route; without a desk it answers 409."""
    router = api_router("devices")

    @router.post(
        "/devices/{device_id}/live-view",
        response_model=LiveViewItem,
        **needs(Scope.DEVICES_VIEW, *WITH_BODY, 404, 409),
    )
    async def live_view(request: Request, device_id: str, body: LiveViewBody) -> dict[str, Any]:
        """Ask a device for the newest screened sample of a source, and wait up to 6 s; logged on both sides."""
        if desk is None:
            raise Problem(409, "no-live-views", "This process has no live views: ask one with the role all or console.")
        caller = caller_of(request)
        try:
            view = await desk.view(device_id, body.source_id, name=caller.name, actor=caller.actor)
        except LiveViewLimitError as error:
            headers = {"Retry-After": str(math.ceil(error.retry_s))}
            raise Problem(429, "too-many-live-views", str(error), headers=headers) from None
        except SettingsError:
            raise not_found(f"Device {device_id[:64]!r}") from None
        if view.sample is None:
            return {"state": view.state, "words": view.words, "sample": None}
        facts, _ = await shelf.facts(view.sample.screening.bundle_id)
        return {"state": view.state, "words": view.words, "sample": _sample(view, view.sample, facts)}

    return router


def _sample(view: LiveView, sample: ShownSample, facts: BundleFacts | None) -> dict[str, Any]:
    screening = sample.screening
    return {
        "modality": sample.modality,
        "captured_at": rfc3339(sample.captured_at_s),
        "origin": sample.origin,
        "score": screening.score,
        "p_value": screening.p_value,
        "extrapolated": screening.extrapolated,
        "route": screening.route,
        "bundle_id": screening.bundle_id,
        "artefact": screening.artefact,
        "picture": _picture(view, sample),
        "readings": _readings(sample, facts) if sample.image_size is None else None,
    }


def _picture(view: LiveView, sample: ShownSample) -> dict[str, Any] | None:
    if sample.image_size is None:
        return None
    return {
        "data": base64.b64encode(view.picture).decode(),
        "height": sample.values.shape[0],
        "width": sample.values.shape[1],
        "whole_height": sample.image_size[0],
        "whole_width": sample.image_size[1],
    }


def _readings(sample: ShownSample, facts: BundleFacts | None) -> dict[str, Any]:
    rows = sample.values.reshape(-1, sample.values.shape[-1]).tolist()
    names = list(facts.spec.channels) if facts is not None and len(facts.spec.channels) == len(rows[0]) else []
    normal = normal_ranges(facts.ranges if facts is not None else None)
    found = [normal.get(name) for name in names]
    return {
        "names": names,
        "normal": [{"low": each.low, "high": each.high} if each is not None else None for each in found],
        "values": [[value if math.isfinite(value) else None for value in row] for row in rows],
        "every": sample.every,
    }
