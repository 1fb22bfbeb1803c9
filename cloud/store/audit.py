"""Audit log: one entry for each change of state, written in the transaction of the change and never changed."""

import os
import pwd
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.schema import audit_log

SERVICE_ACTOR = "service"
_MAX_ACTOR, _MAX_SUBJECT = 128, 256


class AuditAction(StrEnum):
    """Kind of a change."""

    TOKEN_MADE = "token.made"
    TOKEN_DELETED = "token.deleted"
    DEVICE_ENROLLED = "device.enrolled"
    DEVICE_RENEWED = "device.renewed"
    DEVICE_REVOKED = "device.revoked"
    DEVICE_REMOVED = "device.removed"
    DEVICE_DATA_REMOVED = "device.data_removed"
    DEVICE_PLACED = "device.placed"
    DEVICE_NAMED = "device.named"
    DEVICE_VIEWED = "device.viewed"
    GROUP_MADE = "group.made"
    GROUP_RENAMED = "group.renamed"
    GROUP_REMOVED = "group.removed"
    GROUP_SETTINGS = "group.settings"
    BUNDLE_PUBLISHED = "bundle.published"
    BUNDLE_CURRENT = "bundle.current"
    BUNDLE_RELEASED = "bundle.released"
    BUNDLE_ROLLED_BACK = "bundle.rolled_back"
    ROLLOUT_STARTED = "rollout.started"
    ROLLOUT_CHANGED = "rollout.changed"
    COMPARISON_STARTED = "comparison.started"
    COMPARISON_CANCELLED = "comparison.cancelled"
    KEY_ADDED = "key.added"
    KEY_RETIRED = "key.retired"
    LABEL_ADDED = "label.added"
    ITEM_DECIDED = "item.decided"
    ITEM_UNDONE = "item.undone"
    CLASS_ADDED = "class.added"
    CLASS_CHANGED = "class.changed"
    CLASS_REMOVED = "class.removed"
    MISS_REPORTED = "miss.reported"
    MISS_WITHDRAWN = "miss.withdrawn"
    MUTE_MADE = "mute.made"
    MUTE_ENDED = "mute.ended"
    MUTE_RESUMED = "mute.resumed"
    API_TOKEN_MADE = "api_token.made"
    API_TOKEN_REVOKED = "api_token.revoked"
    WEBHOOK_ADDED = "webhook.added"
    WEBHOOK_REMOVED = "webhook.removed"
    USER_ADDED = "user.added"
    USER_ROLE = "user.role"
    USER_PASSWORD = "user.password"
    USER_DISABLED = "user.disabled"
    USER_ENABLED = "user.enabled"
    LINK_MADE = "link.made"
    SESSION_STARTED = "session.started"
    SESSIONS_ENDED = "sessions.ended"
    SHARE_MADE = "share.made"
    SHARE_OPENED = "share.opened"
    SHARE_REVOKED = "share.revoked"
    UPLOAD_MADE = "upload.made"
    UPLOAD_REMOVED = "upload.removed"
    TRAINING_STARTED = "training.started"
    TRAINING_CANCELLED = "training.cancelled"
    TRAINING_REMOVED = "training.removed"
    TRAINING_PUBLISHED = "training.published"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change: `actor` made it to `subject`; `number` is its order."""

    number: int
    at_s: float
    actor: str
    action: str
    subject: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Filter of the log; None and "" do not restrict, `until_s` is exclusive."""

    actor: str = ""
    action: str = ""
    subject: str = ""
    since_s: float | None = None
    until_s: float | None = None


def local_actor() -> str:
    """Return the actor of commands: the operating system's user of this process."""
    try:
        return f"user:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # a container without an entry for the user
        return f"user:{os.getuid()}"


async def record(connection: AsyncConnection, actor: str, action: AuditAction, subject: str, **details: Any) -> None:
    """Add an entry inside the transaction of the change."""
    await record_all(connection, actor, action, [(subject, details)])


async def record_all(
    connection: AsyncConnection, actor: str, action: AuditAction, changes: list[tuple[str, dict[str, Any]]]
) -> None:
    """Add an entry for each subject with its details, inside the transaction of the changes."""
    common = {"at_s": time.time(), "actor": actor[:_MAX_ACTOR], "action": action.value}
    rows = [common | {"subject": subject[:_MAX_SUBJECT], "details": details} for subject, details in changes]
    await connection.execute(insert(audit_log), rows)


async def audit_page(
    connection: AsyncConnection, wanted: AuditFilter, *, before: int | None = None, size: int = 50
) -> tuple[AuditEntry, ...]:
    """Return the newest `size` entries, or the next ones older than the entry number `before`."""
    query = _filtered(select(audit_log), wanted).order_by(audit_log.c.number.desc()).limit(size)
    if before is not None:
        query = query.where(audit_log.c.number < before)
    return tuple(AuditEntry(**row) for row in (await connection.execute(query)).mappings())


def _filtered(query: Select[Any], wanted: AuditFilter) -> Select[Any]:
    for name in ("actor", "action", "subject"):
        if value := getattr(wanted, name):
            query = query.where(audit_log.c[name] == value)
    if wanted.since_s is not None:
        query = query.where(audit_log.c.at_s >= wanted.since_s)
    if wanted.until_s is not None:
        query = query.where(audit_log.c.at_s < wanted.until_s)
    return query
