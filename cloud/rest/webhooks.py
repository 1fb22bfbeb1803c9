"""Routes of webhooks for verdicts."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from cloud.moments import with_rfc3339
from cloud.notice_settings import allows_host
from cloud.rest.access import caller_of, needs
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.fleet import PLACE_PATTERN
from cloud.store.outbox import waiting
from cloud.store.webhooks import MAX_WEBHOOKS, NewWebhook, StoredWebhook, add_webhook, remove_webhook, stored_webhooks

WebhookId = Annotated[str, Path(pattern="^[0-9a-f]{1,16}$")]
Place = Annotated[str, Field(pattern=PLACE_PATTERN, max_length=64)]


class WebhookBody(BaseModel):
    """A webhook to make; no site or no group: verdicts of all."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(pattern=r"^https?://[^\s/@\x00]+(/[^\s\x00]*)?$", max_length=2000)
    decisions: list[Literal["normal", "anomalous", "undecided"]] = Field(
        default=["anomalous"], min_length=1, max_length=3
    )
    sites: list[Place] = Field(default=[], max_length=100)
    groups: list[Place] = Field(default=[], max_length=100)


class WebhookItem(BaseModel):
    """One webhook; `waiting` messages are not delivered yet, `error` is the reason of the last failure."""

    webhook_id: str
    url: str
    decisions: list[str]
    sites: list[str]
    groups: list[str]
    created_at: str
    waiting: int
    error: str


class NewWebhookItem(WebhookItem):
    """A webhook that was made; `secret` signs its messages and is shown here only."""

    secret: str


class WebhookList(BaseModel):
    """All webhooks, oldest first."""

    items: list[WebhookItem]


def webhook_routes(reading: Store, writing: Store, hosts: tuple[str, ...]) -> APIRouter:
    """Return the routes of webhooks, which may name these hosts only."""
    router = api_router("webhooks")

    @router.get("/webhooks", response_model=WebhookList, **needs(Scope.WEBHOOKS_READ))
    async def list_webhooks() -> dict[str, Any]:
        """Return all webhooks, without their secrets."""
        async with reading.reading() as connection:
            found, queues = await stored_webhooks(connection), await waiting(connection)
        return {"items": [_item(webhook, *queues.get(webhook.sink, (0, ""))) for webhook in found]}

    @router.post(
        "/webhooks", response_model=NewWebhookItem, status_code=201, **needs(Scope.WEBHOOKS_WRITE, 409, *WITH_BODY)
    )
    async def post_webhook(request: Request, body: WebhookBody) -> dict[str, Any]:
        """Make a webhook that gets the verdicts from now on; the answer alone holds its secret."""
        if not allows_host(body.url, hosts):
            detail = f"No webhooks to the host of {body.url[:200]!r}: add it to notices.webhook_hosts of the service."
            raise Problem(409, "webhook-refused", detail)
        wanted = NewWebhook(body.url, tuple(body.decisions), tuple(body.sites), tuple(body.groups))
        made = await add_webhook(writing, wanted, caller_of(request).actor)
        if made is None:
            detail = f"There are {MAX_WEBHOOKS} webhooks, the largest number: delete one first."
            raise Problem(409, "webhook-refused", detail)
        return {**_item(made, 0, ""), "secret": made.secret}

    @router.delete("/webhooks/{webhook_id}", status_code=204, **needs(Scope.WEBHOOKS_WRITE, 404))
    async def delete_webhook(request: Request, webhook_id: WebhookId) -> None:
        """Delete a webhook with the messages that wait for it."""
        if not await remove_webhook(writing, webhook_id, caller_of(request).actor):
            raise not_found(f"Webhook {webhook_id!r}")

    return router


def _item(webhook: StoredWebhook, count: int, error: str) -> dict[str, Any]:
    values = {name: value for name, value in asdict(webhook).items() if name != "secret"}
    return {**with_rfc3339(values), "waiting": count, "error": error}
