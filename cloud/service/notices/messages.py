"""Messages that sinks get, as JSON values."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from cloud.moments import rfc3339
from cloud.notice_settings import NoticeSettings, NoticeSinkSettings
from cloud.store.notices import StoredNotice
from cloud.store.verdict_columns import VerdictRecord

DELIVERY_ID = "Vedette-Delivery-Id"
"""Header of webhooks and mails with the id of a message, by which a receiver tells a repetition."""


class VerdictSink(Protocol):
    """Name of a sink, and the verdicts that it gets; no site or no group: those of all."""

    @property
    def sink(self) -> str:
        """Name in outbox and feeds."""
        ...

    @property
    def wants_verdicts(self) -> bool:
        """Whether it gets verdicts at all."""
        ...

    @property
    def decisions(self) -> Collection[str]:
        """Decisions of the verdicts."""
        ...

    @property
    def sites(self) -> Collection[str]:
        """Sites of the devices."""
        ...

    @property
    def groups(self) -> Collection[str]:
        """Groups of the devices."""
        ...


def notice_message(notice: StoredNotice) -> dict[str, Any]:
    """Return the message that a notice was opened or closed."""
    is_open = notice.closed_at_s is None
    return {
        "event": "notice",
        "notice_id": notice.notice_id,
        "kind": notice.kind,
        "subject": notice.subject,
        "state": "open" if is_open else "closed",
        "text": notice.text,
        "opened_at": rfc3339(notice.opened_at_s),
        "closed_at": None if notice.closed_at_s is None else rfc3339(notice.closed_at_s),
    }


def verdict_message(verdict: VerdictRecord, site: str, group: str) -> dict[str, Any]:
    """Return the message of a verdict; the API has its opinions and contributions."""
    return {
        "event": "verdict",
        "sample_id": str(verdict.sample_id),
        "device_id": verdict.device_id,
        "site": site,
        "group": group,
        "source_id": verdict.source_id,
        "origin": verdict.origin,
        "modality": verdict.modality.value,
        "decision": verdict.decision.value,
        "p_value": verdict.p_value,
        "bundle_id": verdict.bundle_id,
        "captured_at": rfc3339(verdict.captured_at_s),
        "judged_at": rfc3339(verdict.judged_at_s),
    }


def sinks_of_kind(settings: NoticeSettings, kind: str) -> list[str]:
    """Return the ids of the sinks that get notices of a kind."""
    wanting = [sink for sink in settings.sinks if "notices" in sink.events]
    return [sink.id for sink in wanting if not sink.kinds or kind in sink.kinds]


def wants_verdict(sink: VerdictSink, message: Mapping[str, Any]) -> bool:
    """Return whether a sink gets the message of a verdict."""
    return (
        message["decision"] in sink.decisions
        and _in(message["site"], sink.sites)
        and _in(message["group"], sink.groups)
    )


def follows_verdicts(sinks: Sequence[NoticeSinkSettings]) -> list[NoticeSinkSettings]:
    """Return the sinks that get verdicts."""
    return [sink for sink in sinks if sink.wants_verdicts]


def _in(value: str, wanted: Collection[str]) -> bool:
    return not wanted or value in wanted
